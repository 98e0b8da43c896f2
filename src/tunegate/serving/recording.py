"""What is logged of an answer: heard while it is given, and put together afterwards, away from where answers are given.

An answer costs an append for each piece of it here; reading the pieces, redacting and writing are the log's threads'.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from tunegate.agent.tools import Language
from tunegate.api.codec import prepare
from tunegate.api.feedback import StepTag
from tunegate.feedback import ResponseIds
from tunegate.feedback.interactions import Content, Interaction, ReleaseParts
from tunegate.feedback.spool import InteractionLog
from tunegate.knowledge.words import is_chinese
from tunegate.serving.events import ApiError, Ask, Event, Finished, Text, Used
from tunegate.serving.parts import Parts
from tunegate.serving.protocols.whole import Whole, joined

CONVERSATION_HEADER = "x-conversation-id"


@dataclass
class Heard:
    """One answer as far as it has come. pieces: the engine's bytes, or events. finish: why it broke off, if it did."""

    id: str
    answered: datetime
    step: StepTag | None
    ask: Ask
    conversation: str
    pieces: list[bytes | Event] = field(default_factory=list)
    first_text: float | None = None
    seconds: float = 0.0
    finish: str | None = None


@dataclass(frozen=True)
class Recorder:
    """Logs the answers of one server. content: whether texts are logged, or numbers alone."""

    log: InteractionLog
    ids: ResponseIds
    model: str
    digest: str
    release: ReleaseParts
    parts: Parts | None = None
    content: bool = True

    def add(self, heard: Heard) -> None:
        """Log it, soon."""
        self.log.add(self._making(heard))

    def _making(self, heard: Heard) -> Callable[[], Interaction]:
        return lambda: self.interaction(heard)

    def interaction(self, heard: Heard) -> Interaction:
        """The record of an answer. Its texts are as they were said: the log redacts them."""
        whole = _joined(heard.pieces)
        usage, sources = whole.usage or {}, whole.sources.sources if whole.sources else ()
        content = None
        if self.content:
            content = Content(
                messages=_messages(heard.ask),
                answer=whole.text,
                reasoning=whole.reasoning,
                steps=tuple(asdict(step) for step in whole.steps) + tuple({"call": call} for call in whole.calls),
                sources=tuple(asdict(source) for source in sources),
            )
        return Interaction(
            id=heard.id,
            model=self.model,
            digest=self.digest,
            release=self.release,
            step=heard.step,
            user=self.ids.read(heard.id).user,
            conversation=self.ids.tag_of_conversation(heard.conversation) if heard.conversation else None,
            answered=heard.answered,
            finish=heard.finish or whole.reason or "unknown",
            prompt_template=self._template(heard.ask),
            input_tokens=usage.get("prompt_tokens"),
            output_tokens=usage.get("completion_tokens"),
            first_text_seconds=heard.first_text,
            seconds=round(heard.seconds, 6),
            tools=dict(Counter(step.tool for step in whole.steps)),
            tool_failures=sum(step.failed for step in whole.steps),
            sources=len(sources),
            content=content,
        )

    def _template(self, ask: Ask) -> str | None:
        """The file and the digest of the template that the release's prompts have for this question."""
        if not self.parts or not ask.messages:
            return None
        question = next((said.get("content") for said in reversed(ask.messages) if said.get("role") == "user"), "")
        language: Language = "zh" if isinstance(question, str) and is_chinese(question) else "en"
        template = self.parts.templates.get(language)
        return f"{Path(template.source).name}@{template.digest}" if template else None


def _joined(pieces: Sequence[bytes | Event]) -> Whole:
    """What the pieces say; of an engine's bytes as far as they can be read."""
    data = b"".join(piece for piece in pieces if isinstance(piece, bytes))
    whole = joined(piece for piece in pieces if not isinstance(piece, bytes))
    if data[:1] == b"{":
        _add_body(whole, data)
    elif data:
        with suppress(ApiError, msgspec.DecodeError):  # it broke off: why stands in `finish`
            _add_stream(whole, data)
    return whole


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[Any] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    """What is logged of a chunk; of several choices the first one."""

    choices: list[_Choice] = []
    usage: dict[str, Any] | None = None


_CHUNK = msgspec.json.Decoder(_Chunk)
prepare(_Chunk)


def _add_stream(whole: Whole, data: bytes) -> None:
    """An engine's stream. Read at once and no further than needed: the thread that does this holds up answers."""
    texts, thoughts = list[str](), list[str]()
    try:
        for line in data.split(b"\n"):
            if line[:5] != b"data:" or b"[DONE]" in line[:16]:
                continue
            chunk = _CHUNK.decode(line[5:])
            whole.usage = chunk.usage or whole.usage
            for choice in chunk.choices:
                said = choice.delta or _Delta(content=choice.text)
                if said.tool_calls:
                    whole.calls += said.tool_calls
                if choice.index == 0:
                    texts.append(said.content or "")
                    thoughts.append(said.reasoning_content or said.reasoning or "")
                    whole.reason = choice.finish_reason or whole.reason
    finally:
        whole.text, whole.reasoning = "".join(texts), "".join(thoughts)


def _add_body(whole: Whole, body: bytes) -> None:
    """An answer in one piece, in OpenAI's form; of several choices the first one."""
    answer: dict[str, Any] = msgspec.json.decode(body)
    if usage := answer.get("usage"):
        whole.add(Used(usage))
    choice: dict[str, Any] = next(iter(answer.get("choices", ())), {})
    said = choice.get("message") or {"content": choice.get("text")}
    whole.add(Text(said.get("reasoning_content") or "", reasoning=True))
    whole.add(Text(said.get("content") or ""))
    whole.calls += said.get("tool_calls") or []
    whole.add(Finished(choice.get("finish_reason") or "unknown", usage))


def _messages(ask: Ask) -> tuple[dict[str, Any], ...]:
    if ask.prompt is None:
        return tuple(ask.messages)
    prompt = ask.prompt if isinstance(ask.prompt, str) else msgspec.json.encode(ask.prompt).decode()
    return ({"role": "user", "content": prompt},)
