"""OpenAI's chat completions: request bytes to an Ask, and events to bytes; errors in the form its clients read.

Steps and sources travel in a field `tunegate` of ordinary chunks, which clients that don't know it leave alone: events
of another name break OpenAI's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from tunegate.serving.events import (
    ApiError,
    Ask,
    Cited,
    Event,
    Finished,
    Sources,
    Step,
    Text,
    ToolCalls,
    Used,
    bad_request,
)
from tunegate.serving.protocols.protocol import Headers, Protocol, check_messages, decode
from tunegate.serving.protocols.whole import annotation, joined

DONE = b"data: [DONE]\n\n"


def read(body: bytes, headers: Headers = ()) -> Ask:
    """What the client asks. Raises ApiError 400 that names the field."""
    return read_request(decode(body))


def read_request(request: dict[str, Any]) -> Ask:
    """The same for a request that is JSON already."""
    messages = request.pop("messages", None)
    common = read_common(request)
    # Engines number the pieces of tool calls in ways that clients can't read; with several choices they are left.
    needs_events = request.get("tools") and request.get("n", 1) == 1 and not request.get("logprobs")
    return Ask(**common, messages=check_messages(messages), native=not needs_events)


def read_common(request: dict[str, Any]) -> dict[str, Any]:
    """What chat and text requests have in common, as arguments of an Ask. Raises ApiError 400 that names the field."""
    model = request.pop("model", None)
    if not isinstance(model, str):
        raise bad_request("model is missing; GET /v1/models names the one that is served here.", "model")
    stream = request.get("stream", False)
    if not isinstance(stream, bool):
        said = msgspec.json.encode(stream).decode()[:100]
        raise bad_request(f"stream must be true or false, not {said}.", "stream")
    for key in ("safety_identifier", "user"):
        if not isinstance(request.get(key, ""), str):
            raise bad_request(f"{key} must be a text that stands for the user.", key)
    options = request.get("stream_options", {})
    include_usage = options.get("include_usage") if isinstance(options, dict) else options
    if include_usage not in (None, True, False):
        raise bad_request('stream_options must be an object such as {"include_usage": true}.', "stream_options")
    return {
        "model": model,
        "stream": stream,
        "include_usage": bool(include_usage),
        "user": request.get("safety_identifier") or request.get("user") or None,  # `user` is the older name
        "fields": request,
    }


def error(failed: ApiError, request_id: str = "") -> bytes:
    """The JSON of an error, as a body or as the data of an event."""
    kind = "invalid_request_error" if failed.status < 500 else "server_error"
    fields = {"message": failed.message, "type": kind, "param": failed.param, "code": failed.code}
    return msgspec.json.encode({"error": fields})


@dataclass(frozen=True)
class Writer:
    """Events to bytes. `created`: Unix time in seconds."""

    id: str
    model: str
    created: int
    include_usage: bool = False

    def start(self) -> bytes:
        """The first event of a stream."""
        return self._chunk({"role": "assistant", "content": ""})

    def write(self, event: Event) -> bytes:
        """The events of a stream for one of ours; the last ones end it."""
        match event:
            case Text(delta, reasoning):
                return self._chunk({"reasoning_content" if reasoning else "content": delta})
            case ToolCalls(calls):
                return self._chunk({"tool_calls": calls})
            case Step():
                return self._chunk({}, beside={"step": event})
            case Sources(sources):
                return self._chunk({}, beside={"sources": sources})
            case Cited():
                return self._chunk({"annotations": [annotation(event)]})
            case Used():
                return b""
            case Finished(reason, usage, cited):
                end = self._chunk({}, reason, {} if cited is None else {"cited": cited})
                return end + (self._event([], usage) if self.include_usage else b"") + DONE

    def whole(self, events: Iterable[Event]) -> bytes:
        """The answer in one piece; `events` hold a Finished."""
        answer = joined(events)
        choice = {"index": 0, "message": answer.message(), "logprobs": None, "finish_reason": answer.reason}
        whole = {**self._head("chat.completion"), "choices": [choice], "usage": answer.usage}
        return msgspec.json.encode({**whole, "tunegate": beside} if (beside := answer.beside()) else whole)

    def failure(self, failed: ApiError) -> bytes:
        """The event that ends a stream without [DONE]."""
        return b"data: " + error(failed) + b"\n\n"

    def _chunk(self, delta: Mapping[str, Any], finish: str | None = None, beside: Mapping[str, Any] = {}) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return self._event([choice], beside={"tunegate": beside} if beside else {})

    def _event(self, choices: list[Any], usage: Any = None, beside: Mapping[str, Any] = {}) -> bytes:
        chunk = {**self._head("chat.completion.chunk"), "choices": choices}
        if self.include_usage:
            chunk["usage"] = usage
        chunk |= beside
        return b"data: " + msgspec.json.encode(chunk) + b"\n\n"

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def write(ask: Ask, answer_id: str, model: str, created: int) -> Writer:
    return Writer(answer_id, model, created, ask.include_usage)


CHAT = Protocol(read, write, error)
