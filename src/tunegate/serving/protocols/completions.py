"""OpenAI's older completions: a text that the model continues, without chat template or system prompt."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from tunegate.serving.events import ApiError, Ask, Event, Finished, Text, bad_request
from tunegate.serving.protocols.openai import DONE, error, read_common
from tunegate.serving.protocols.protocol import Headers, Protocol, decode
from tunegate.serving.protocols.whole import joined


def read(body: bytes, headers: Headers = ()) -> Ask:
    """What the client asks. Raises ApiError 400 that names the field."""
    request = decode(body)
    prompt = request.pop("prompt", None)
    common = read_common(request)
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str):
        prompt = prompt[0]
    if not isinstance(prompt, str | list) or not prompt:
        raise bad_request("prompt must be a text with at least one character.", "prompt")
    return Ask(**common, prompt=prompt)


@dataclass(frozen=True)
class Writer:
    """Events to bytes. `created`: Unix time in seconds."""

    id: str
    model: str
    created: int
    include_usage: bool = False

    def start(self) -> bytes:
        return b""

    def write(self, event: Event) -> bytes:
        """The events of a stream for one of ours; the last ones end it."""
        match event:
            case Text(delta):
                return self._event([self._choice(delta)])
            case Finished(reason, usage):
                end = self._event([self._choice("", reason)])
                return end + (self._event([], usage) if self.include_usage else b"") + DONE
            case _:
                return b""

    def whole(self, events: Iterable[Event]) -> bytes:
        """The answer in one piece; `events` hold a Finished."""
        answer = joined(events)
        choices = [self._choice(answer.reasoning + answer.text, answer.reason)]
        return msgspec.json.encode({**self._head(choices), "usage": answer.usage})

    def failure(self, failed: ApiError) -> bytes:
        """The event that ends a stream without [DONE]."""
        return b"data: " + error(failed) + b"\n\n"

    def _choice(self, text: str, finish: str | None = None) -> dict[str, Any]:
        return {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}

    def _event(self, choices: list[Any], usage: Any = None) -> bytes:
        used = {"usage": usage} if self.include_usage else {}
        return b"data: " + msgspec.json.encode({**self._head(choices), **used}) + b"\n\n"

    def _head(self, choices: list[Any]) -> dict[str, Any]:
        head = {"id": self.id, "object": "text_completion", "created": self.created, "model": self.model}
        return {**head, "choices": choices}


def write(ask: Ask, answer_id: str, model: str, created: int) -> Writer:
    return Writer(answer_id, model, created, ask.include_usage)


TEXT = Protocol(read, write, error)
