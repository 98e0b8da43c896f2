"""How a release with tools answers: `tunegate.agent`'s loop with the engine as its model, as events.

In the dialect of thoughts and actions, the answer is sent on while the model still writes it. A model that calls tools
may do so after any text, so there the answer comes when it is whole.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from tunegate.agent import Answered, Taken, calls, loop, once
from tunegate.agent.react import Answer, answer_so_far, parse
from tunegate.agent.steps import Reply, ToolCall
from tunegate.agent.tools import Language, Tool, find
from tunegate.api.versions import Limits
from tunegate.prompts import Message, Template
from tunegate.serving.conversation import Conversation
from tunegate.serving.events import (
    Ask,
    Asking,
    Event,
    Finished,
    Source,
    Sources,
    Step,
    Text,
    ToolCalls,
    bad_request,
)
from tunegate.serving.features import LENGTHS
from tunegate.serving.grounding import shown
from tunegate.serving.parts import Parts
from tunegate.serving.protocols.whole import Whole
from tunegate.serving.stops import StopScanner, read_stops

_OWN = ("tools", "tool_choice", "response_format")
_NOT_THE_MODELS = {"stop", "stream_options", *LENGTHS}  # of the request: they are about the answer as a whole


def check(ask: Ask, talk: Conversation) -> None:
    """Raises ApiError 400 for what can't be asked of an agent."""
    for name in _OWN:
        if ask.fields.get(name) not in (None, [], "none", "auto", {"type": "text"}):
            message = f"{name}: the version served asks tools of its own on the way to an answer; leave it out."
            raise bad_request(message, name, "unsupported_parameter")
    if talk.later:
        raise bad_request("messages: the last one must be the user's; an agent answers it.", "messages")


async def answer_with_tools(
    ask: Ask, talk: Conversation, language: Language, parts: Parts, engine: Asking
) -> AsyncGenerator[Event]:
    """The steps as they are taken, the sources that they find, and the answer. Raises ApiError and PromptError."""
    check(ask, talk)
    said: asyncio.Queue[Event | None] = asyncio.Queue()
    template = parts.dated(language, datetime.now(UTC).date())
    so_far = str if parts.dialect == "once" else answer_so_far
    model = _Model(ask, template, parts.limits, engine, said.put_nowait, so_far)
    working = asyncio.ensure_future(_work(model, talk, language, parts, said.put_nowait))
    working.add_done_callback(lambda _: said.put_nowait(None))
    scanner = StopScanner(read_stops(ask.fields))
    try:
        while event := await said.get():
            if isinstance(event, Finished) and (held := scanner.end()):
                yield Text(held)
            if not isinstance(event, Text):
                yield event
            elif text := scanner.feed(event.delta):
                yield Text(text)
            if scanner.stopped:
                yield Finished("stop", model.usage)
                return
        await working
    finally:
        working.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await working


async def _work(
    model: _Model, talk: Conversation, language: Language, parts: Parts, say: Callable[[Event], None]
) -> None:
    """Take the steps to the end, and say what happens."""
    tools = parts.tools[language]
    tokens, before = parts.control_tokens, talk.before(parts.control_tokens)
    given: dict[str, Any] = {"nonce": secrets.token_hex(4), "language": language, "before": before}
    given |= {"template": model.template, "control_tokens": tokens, "count": parts.counting}
    moves: AsyncIterator[Taken | Answered]
    if parts.dialect == "once":
        moves = once.ask(talk.question, tools[0], model.write, today=datetime.now(UTC).date(), **given)
    elif parts.dialect == "react":
        moves = loop.ask(talk.question, tools, model.write, limits=parts.limits, **given)
    else:
        moves = calls.ask(talk.question, tools, model.call, limits=parts.limits, **given)
    sources: dict[int, Source] = {}
    async for move in moves:
        if isinstance(move, Taken):
            say(_step(move, tools))
            if move.sources:
                sources |= {it.number: shown(it) for it in move.sources}
                say(Sources(tuple(sources.values())))
            continue
        if rest := model.rest(move.text):
            say(Text(rest))
        whole = move.reason == "answer" and model.finish != "length"
        say(Finished("stop" if whole else "length", model.usage))


@dataclass
class _Model:
    """The engine as an agent asks it. so_far: what of a text is the answer. usage: by OpenAI's names, of all its texts;
    None once that isn't known.

    Each of its texts may take as long as all steps together: one that takes longer is cut off there.
    """

    ask: Ask
    template: Template
    limits: Limits
    engine: Asking
    say: Callable[[Event], None]
    so_far: Callable[[str], str]
    begun: float = field(default_factory=time.monotonic)
    tokens: int = 0
    usage: dict[str, int] | None = field(default_factory=dict)
    finish: str = ""
    sent: str = ""
    text: str = ""

    async def write(self, messages: Sequence[Message]) -> Reply:
        """As `tunegate.agent.loop` asks; what of the text is the answer is said at once."""
        asked = [{"role": message.role, "content": message.content} for message in messages]

        def show(written: str) -> None:
            answer = self.so_far(written)
            if new := answer[len(self.sent) :]:
                self.sent = answer
                self.say(Text(new))

        whole, tokens = await self._ask(asked, {}, show)
        return Reply(whole.text, tokens)

    async def call(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], choice: calls.Choice
    ) -> Reply:
        """As `tunegate.agent.calls` asks."""
        fields = {"tools": list(tools), "tool_choice": choice}
        whole, tokens = await self._ask([dict(message) for message in messages], fields, lambda text: None)
        made = [ToolCall(it["id"], it["function"]["name"], it["function"]["arguments"]) for it in whole.calls]
        return Reply(whole.text, tokens, tuple(made))

    def rest(self, answer: str) -> str:
        """What of the answer has not been said yet."""
        if not self.sent:
            return answer
        if self.so_far is str:
            return ""
        move = parse(self.text)
        return (move.text if isinstance(move, Answer) else "")[len(self.sent) :]

    async def _ask(
        self, messages: list[dict[str, Any]], fields: Mapping[str, Any], show: Callable[[str], None]
    ) -> tuple[Whole, int]:
        """What the engine says, as far as it gets in time, and in how many tokens."""
        whole, pieces = Whole(reason="length"), 0
        asked = replace(self.ask, messages=messages, fields={**self._fields(), **fields}, native=False)
        left = self.begun + self.limits.seconds - time.monotonic()
        in_time = asyncio.timeout(left if left > 0 else self.limits.seconds)
        try:
            async with in_time, self.engine(asked) as events:
                async for event in events:
                    pieces += isinstance(event, Text | ToolCalls)
                    whole.add(event)
                    if isinstance(event, Text) and not event.reasoning:
                        show(whole.text)
        except TimeoutError:
            if not in_time.expired():  # it is the engine that can't be reached
                raise
        self.text, self.finish = whole.text, whole.reason or ""
        return whole, self._count(whole.usage, pieces)

    def _count(self, usage: Mapping[str, Any] | None, pieces: int) -> int:
        """Add up what an answer took. An engine that was stopped does not say it: about a token to a piece."""
        if usage is None or self.usage is None:
            self.usage = None
        else:
            names = ("prompt_tokens", "completion_tokens", "total_tokens")
            self.usage = {name: self.usage.get(name, 0) + usage.get(name, 0) for name in names}
        tokens = int(usage["completion_tokens"]) if usage else pieces
        self.tokens += tokens
        return tokens

    def _fields(self) -> dict[str, Any]:
        """What the client asks for, and where each text of the model ends."""
        head, fields = self.template.head.limits, self.ask.fields
        lengths = [head.max_tokens, *(fields.get(name) for name in LENGTHS), self.limits.tokens - self.tokens]
        kept = {name: value for name, value in fields.items() if name not in {*_NOT_THE_MODELS, *_OWN}}
        known = [length for length in lengths if isinstance(length, int) and length > 0]
        return {
            **kept,
            **({"stop": list(head.stop)} if head.stop else {}),
            "max_tokens": min(known, default=self.limits.tokens),
        }


def _step(taken: Taken, tools: Sequence[Tool]) -> Step:
    tool = find(tools, taken.tool)
    name = tool.function if tool else taken.tool
    about = (taken.number, taken.thought, name, taken.input, taken.observation, taken.seconds)
    return Step(*about, failed=taken.failed)
