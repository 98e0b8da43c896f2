"""OpenAI's chat completions: request bytes to an Ask, and events to bytes; errors in the form its clients read.

Engines speak the same protocol, so `EngineStream` reads their bytes back into events. That path is taken where the
engine's own bytes would not do: see `pipeline`. Elsewhere they pass through untouched (`passthrough`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from tunegate.serving.events import ApiError, Ask, Event, Finished, Text, ToolCalls, bad_request

DONE = b"data: [DONE]\n\n"
_END_OF_LINE = re.compile(rb"\r\n|\n")


def read(body: bytes) -> Ask:
    """What the client asks. Raises ApiError 400 that names the field."""
    try:
        request = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise bad_request(f"The body is not JSON: {error}.") from None
    if not isinstance(request, dict):
        raise bad_request("The body must be a JSON object.")
    request = {key: value for key, value in request.items() if value is not None}
    model, messages = request.pop("model", None), request.pop("messages", None)
    if not isinstance(model, str):
        raise bad_request("model is missing; GET /v1/models names the one that is served here.", "model")
    if not isinstance(messages, list) or not messages or not all(isinstance(message, dict) for message in messages):
        raise bad_request("messages must be a list with at least one message.", "messages")
    stream = request.get("stream", False)
    if not isinstance(stream, bool):
        raise bad_request("stream must be true or false.", "stream")
    for key in ("safety_identifier", "user"):
        if not isinstance(request.get(key, ""), str):
            raise bad_request(f"{key} must be a text that stands for the user.", key)
    options = request.get("stream_options")
    return Ask(
        model=model,
        messages=messages,
        stream=stream,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
        user=request.get("safety_identifier") or request.get("user") or None,  # `user` is the older name
        fields=request,
    )


def error_body(status: int, message: str, param: str | None = None, code: str | None = None) -> bytes:
    """The JSON of an error, as a body or as the data of an event."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": param, "code": code}})


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
            case Finished(reason, usage):
                end = self._chunk({}, reason)
                return end + (self._event([], usage) if self.include_usage else b"") + DONE

    def whole(self, events: Iterable[Event]) -> bytes:
        """The answer in one piece; `events` hold a Finished."""
        message: dict[str, Any] = {"role": "assistant", "content": ""}
        finish, usage = None, None
        for event in events:
            match event:
                case Text(delta, reasoning):
                    name = "reasoning_content" if reasoning else "content"
                    message[name] = message.get(name, "") + delta
                case ToolCalls(calls):
                    bare = ({key: value for key, value in call.items() if key != "index"} for call in calls)
                    message["tool_calls"] = [*message.get("tool_calls", []), *bare]
                case Finished():
                    finish, usage = event.reason, event.usage
        choices = [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}]
        return msgspec.json.encode({**self._head("chat.completion"), "choices": choices, "usage": usage})

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        return self._event([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}])

    def _event(self, choices: list[Any], usage: Any = None) -> bytes:
        chunk = {**self._head("chat.completion.chunk"), "choices": choices}
        if self.include_usage:
            chunk["usage"] = usage
        return b"data: " + msgspec.json.encode(chunk) + b"\n\n"

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


class EngineStream:
    """An engine's event stream, fed in pieces of any size, read back into events.

    Usage may come with the finish or, as OpenAI has it, after it.
    """

    def __init__(self) -> None:
        self._tail = b""
        self._reason: str | None = None
        self._usage: dict[str, Any] | None = None

    def feed(self, data: bytes) -> list[Event]:
        """Raises ApiError when the engine reports an error, DecodeError for what is no chunk."""
        *lines, self._tail = _END_OF_LINE.split(self._tail + data)
        return [event for line in lines if line.startswith(b"data:") for event in self._events(line[5:].strip())]

    def end(self) -> list[Event]:
        """What is known only at the end of the stream. Raises ApiError when the engine broke off before it."""
        events = self.feed(b"\n") if self._tail else []
        if self._reason is None:
            raise ApiError(502, "The engine broke off; ask again.", reason="engine")
        return [*events, Finished(self._reason, self._usage)]

    def _events(self, data: bytes) -> list[Event]:
        if data == b"[DONE]":
            return []
        if re.match(rb'\{\s*"error"', data):  # transformers writes its text into it unescaped: often no JSON
            raise ApiError(502, "The engine failed; ask again.", reason="engine")
        chunk = msgspec.json.decode(data, type=dict[str, Any])
        self._usage = chunk.get("usage") or self._usage
        events: list[Event] = []
        for choice in chunk.get("choices", ()):
            delta = choice.get("delta") or {}
            if reasoning := delta.get("reasoning_content"):
                events.append(Text(reasoning, reasoning=True))
            if text := delta.get("content"):
                events.append(Text(text))
            if calls := delta.get("tool_calls"):
                events.append(ToolCalls(calls))
            self._reason = choice.get("finish_reason") or self._reason
        return events
