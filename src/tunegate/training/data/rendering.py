"""Where the answers stand in a dialogue as its chat template renders it, and the token ids of what is between.

An answer begins where the prompt ends that a server would render for it, and ends with the token that closes it: both
are found by rendering, so that a template is never guessed. Where the prompt opens a thought that the template takes
out of what was said, as DeepSeek-R1's does, the last answer is what the model would write: the thought, what closes it,
and the answer as it is rendered.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

import msgspec
import numpy as np
from jinja2 import TemplateError

from tunegate.models.templates import closing_of, special_tokens
from tunegate.training.data.dialogues import Dialogue, Message
from tunegate.training.data.readers import Reason, RecordError

_PROBE = "What nobody says"
_OPENED = re.compile(r"<think>\s*$")  # how a prompt may end
_THOUGHT = re.compile(r"\s*(?:<think>)?(?P<thought>.*?)</think>\s*", re.DOTALL)  # how an answer may begin
_ELSEWHERE = "; --template auto is the base's own, and chatglm3, glm4, llama3, mistral, yi and those of Qwen have one"


@dataclass(frozen=True)
class Answer:
    """The characters of an answer and of what closes it."""

    start: int
    end: int
    is_trained: bool


@dataclass(frozen=True)
class Rendered:
    """A dialogue's text up to the end of its last answer; `unrendered`: keys of its messages that it leaves out."""

    text: str
    answers: tuple[Answer, ...]
    unrendered: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Asked:
    """Messages and tools as `apply_chat_template` takes them."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None


class Renderer:
    """The chat template and the tokenizer of a model. Raises ModelError for a template that closes no answer."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._special = special_tokens(tokenizer)
        self._closing = closing_of(tokenizer)
        self._thinks = self._has_place_for(Message("assistant", "Hello", _PROBE))
        self._strips = not self._has_place_for(Message("assistant", f"<think>\n{_PROBE}\n</think>\n\nHello"))
        self._opens = bool(_OPENED.search(self._text(_Asked([{"role": "user", "content": "Hi"}]), has_prompt=True)))
        self._is_cut_anywhere: bool | None = None

    def render(self, dialogue: Dialogue) -> Rendered:
        """Raises RecordError for a dialogue that the template refuses, or renders otherwise than it asks for it."""
        self._refuse_reserved(dialogue)
        asked = self._asked(dialogue)
        text = self._as_generated(asked, dialogue.messages[-1])
        starts = self._starts(asked, text)
        answers: list[Answer] = []
        unrendered = set[str]()
        if dialogue.tools and not all(_name(tool) in text for tool in dialogue.tools):
            unrendered.add("tools")
        for index, message in enumerate(dialogue.messages):
            if message.role != "assistant":
                continue
            text, span = self._span(asked, index, text, starts)
            said = text[slice(*span)] if span else ""
            if not all(call.name in said for call in message.tool_calls):
                raise RecordError(
                    Reason.TOOL_TURN, f"an answer calls tools, which the chat template has no place for{_ELSEWHERE}"
                )
            if not span:
                unrendered.add("messages[].content")
                continue
            if (
                message.content.rpartition("</think>")[2].strip() not in said
            ):  # as beside a call, where some have no place
                unrendered.add("messages[].content")
            is_thought = _thought(message).strip() in said
            if not is_thought:
                unrendered.add("messages[].reasoning_content")
            # Without its reasoning it would be learned to answer at once where the model is to think.
            knows = self._thinks or self._strips
            answers.append(Answer(*span, message.trained and (is_thought or not knows)))
        if not answers:
            raise RecordError(
                Reason.NOTHING_TRAINED,
                "the chat template renders no answer as it asks for it; give another --template, or a base whose own "
                "does",
            )
        return Rendered(text[: answers[-1].end], tuple(answers), tuple(sorted(unrendered)))

    def segments(self, rendered: Sequence[Rendered]) -> Iterator[list[list[int]]]:
        """The ids of each text: of what comes before its first answer, of that answer, of what comes then, and so on.

        A served prompt ends where an answer begins: no token spans both.
        """
        bounds: list[Any] = [
            [0, *(bound for answer in each.answers for bound in (answer.start, answer.end))] for each in rendered
        ]
        backend = self._tokenizer.backend_tokenizer
        if not self._cuts_anywhere():
            encodings = backend.encode_batch([each.text for each in rendered], add_special_tokens=False)
            for bound, encoding in zip(bounds, encodings, strict=True):
                places = np.searchsorted([end for _, end in encoding.offsets], bound, side="right")
                yield [encoding.ids[first:last] for first, last in pairwise(places)]
            return
        pieces = [
            each.text[first:last]
            for each, places in zip(rendered, bounds, strict=True)
            for first, last in pairwise(places)
        ]
        # The tokenizer's own core, on all CPUs: its Python wrapper takes as long again.
        ids = (piece.ids for piece in backend.encode_batch_fast(pieces, add_special_tokens=False))
        for places in bounds:
            yield [next(ids) for _ in pairwise(places)]

    def _cuts_anywhere(self) -> bool:
        """Whether pieces come to the same ids as the whole: not where a tokenizer puts a space before each text."""
        if self._is_cut_anywhere is None:
            backend = self._tokenizer.backend_tokenizer
            whole, *pieces = [
                backend.encode(text, add_special_tokens=False).ids for text in ("Hi, you\n", "Hi,", " you", "\n")
            ]
            self._is_cut_anywhere = whole == [*chain.from_iterable(pieces)]
        return self._is_cut_anywhere

    def _asked(self, dialogue: Dialogue) -> _Asked:
        """What is asked for, with ids of nine digits where there are calls whose ids the template refuses.

        Mistral's own takes no others, and most data sets have none.
        """
        tools = list(dialogue.tools) or None
        asked = _Asked([message.for_template() for message in dialogue.messages], tools)
        if not any(message.tool_calls for message in dialogue.messages) or self._is_taken(asked):
            return asked
        numbered = _Asked([message.for_template() for message in _with_ids(dialogue.messages)], tools)
        try:
            self._text(numbered)
        except RecordError as error:
            raise RecordError(Reason.TOOL_TURN, f"{error}{_ELSEWHERE}") from None
        return numbered

    def _is_taken(self, asked: _Asked) -> bool:
        try:
            self._text(asked)
        except RecordError:
            return False
        return True

    def _as_generated(self, asked: _Asked, last: Message) -> str:
        """The text of all messages, with the thought of the last answer where the template takes that out."""
        text, thought = self._text(asked), _thought(last)
        if not (self._opens or (self._strips and thought)):
            return text
        prompt = self._text(asked, len(asked.messages) - 1, has_prompt=True)
        opened = _OPENED.search(prompt)
        before = prompt[: opened.start()] if opened else prompt
        if not text.startswith(before) or (text.startswith(prompt) and thought.strip() in text[len(prompt) :]):
            return text
        rest = text[len(before) :].lstrip()
        start = opened[0] if opened else "<think>\n"
        inline = None if last.reasoning else _THOUGHT.match(last.content)
        written = _without(start, inline[0].lstrip()) if inline else f"{thought}\n</think>\n\n"
        kept = _without(start, rest) if inline and rest.startswith(inline[0].strip()) else written + rest
        return before + start + kept

    def _starts(self, asked: _Asked, text: str) -> dict[int, int]:
        """Where each answer begins with which the text goes on as the prompt for it ends, by the answer's place."""
        found: dict[int, int] = {}
        bound = len(text)
        for index in reversed(range(len(asked.messages))):
            if asked.messages[index]["role"] != "assistant":
                continue
            prompt = self._text(asked, index, has_prompt=True)
            start = len(prompt) if text.startswith(prompt) else None
            if start is None:
                # What was said before is rendered otherwise now, as where reasoning is dropped: what asks stays.
                asks = prompt.removeprefix(self._text(asked, index))
                place = text.rfind(asks, 0, bound) if asks != prompt and self._special.match(asks) else -1
                start = place + len(asks) if place >= 0 else None
            if start is not None:
                found[index], bound = start, start - 1
        return found

    def _span(self, asked: _Asked, index: int, text: str, starts: dict[int, int]) -> tuple[str, tuple[int, int] | None]:
        """Where an answer begins and ends, with what closes it, and the text, to which the end of a last one is added.

        None where it is not rendered as it would be asked for, or closed as it would end.
        """
        start, is_last = starts.get(index), index + 1 == len(asked.messages)
        if start is None:
            return text, None
        if self._closing:
            bound = min((place for place in starts.values() if place > start), default=len(text))
            place = text.find(self._closing, start, bound)
            if place < 0 and is_last:
                raise RecordError(Reason.REFUSED_BY_TEMPLATE, "the chat template closes an answer otherwise than usual")
            return text, (start, place + len(self._closing)) if place >= 0 else None
        if is_last:
            return text + self._tokenizer.eos_token, (start, len(text) + len(self._tokenizer.eos_token))
        head = self._text(asked, index + 1)
        if not text.startswith(head):
            raise RecordError(Reason.REFUSED_BY_TEMPLATE, "the chat template changes an answer that it does not close")
        following = self._special.match(text, len(head))  # which begins the next turn, and ends this one
        return text, (start, following.end() if following else len(head))

    def _text(self, asked: _Asked, count: int | None = None, *, has_prompt: bool = False) -> str:
        """The first `count` messages, or all; `has_prompt` adds what a server ends a prompt with."""
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    asked.messages[:count], tools=asked.tools, tokenize=False, add_generation_prompt=has_prompt
                )
            )
        except (TemplateError, ValueError, TypeError) as error:
            raise RecordError(Reason.REFUSED_BY_TEMPLATE, f"the chat template refuses it: {error}") from None

    def _has_place_for(self, answer: Message) -> bool:
        try:
            return _PROBE in self._text(_Asked([Message("user", "Hi").for_template(), answer.for_template()]))
        except RecordError:
            return False

    def _refuse_reserved(self, dialogue: Dialogue) -> None:
        for message in dialogue.messages:
            calls = msgspec.json.encode(message.tool_calls).decode() if message.tool_calls else ""
            for said in (message.content, message.reasoning, calls):
                if found := self._special.search(said):
                    turn = "an assistant turn" if message.role == "assistant" else f"a {message.role} turn"
                    raise RecordError(
                        Reason.RESERVED_TEXT, f"{turn} holds {found[0]}, which is a token of the model and no text"
                    )


def _thought(message: Message) -> str:
    """What was thought before an answer, which may stand in its text; empty where nothing was."""
    if message.reasoning or "</think>" not in message.content:
        return message.reasoning.strip("\n")
    inline = _THOUGHT.match(message.content)
    return inline["thought"].strip("\n") if inline else ""


def _with_ids(messages: Sequence[Message]) -> Iterator[Message]:
    """The messages with their calls numbered; what tools say is given to the calls before it in turn."""
    number = answered = 0
    ids: dict[str, str] = {}
    for message in messages:
        calls = []
        for call in message.tool_calls:
            number += 1
            ids[call.id] = f"{number:09}"
            calls.append(msgspec.structs.replace(call, id=f"{number:09}"))
        if message.role == "tool":
            answered += 1
            given = ids.get(message.tool_call_id, f"{answered:09}")
            message = msgspec.structs.replace(message, tool_call_id=given)
        yield msgspec.structs.replace(message, tool_calls=tuple(calls))


def _without(start: str, text: str) -> str:
    """The text after the beginning of a thought, which the prompt may have in full."""
    return text.removeprefix(start).removeprefix("<think>")


def _name(tool: dict[str, Any]) -> str:
    about = tool.get("function", tool)
    return str(about.get("name", "")) if isinstance(about, dict) else ""
