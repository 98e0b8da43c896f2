"""An engine's event stream, in OpenAI's form for chat or text, read back into events.

That path is taken where the engine's own bytes would not do: see `pipeline`. Elsewhere they pass through untouched
(`passthrough`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from tunegate.serving.events import ApiError, Event, Finished, Text, ToolCalls, Used

_END_OF_LINE = re.compile(rb"\r\n|\n")


class EngineStream:
    """Fed in pieces of any size. Usage may come in every chunk, with the finish or, as OpenAI has it, after it."""

    def __init__(self) -> None:
        self._tail = b""
        self._reason: str | None = None
        self._usage: dict[str, Any] | None = None
        self._numbers: dict[str, int] = {}
        self._begun: dict[int, str] = {}

    def feed(self, data: bytes) -> Iterator[Event]:
        """Raises ApiError when the engine reports an error, after what came before it; DecodeError for no chunk."""
        *lines, self._tail = _END_OF_LINE.split(self._tail + data)
        for line in lines:
            if line.startswith(b"data:"):
                yield from self._events(line[5:].strip())

    def end(self) -> Iterator[Event]:
        """What is known only at the end of the stream. Raises ApiError when the engine broke off before it."""
        if self._tail:
            yield from self.feed(b"\n")
        if self._reason is None:
            raise ApiError(502, "The engine broke off; ask again.", reason="engine")
        yield Finished(self._reason, self._usage)

    def _events(self, data: bytes) -> list[Event]:
        if data == b"[DONE]":
            return []
        if re.match(rb'\{\s*"error"', data):  # transformers writes its text into it unescaped: often no JSON
            raise ApiError(502, "The engine failed; ask again.", reason="engine")
        chunk = msgspec.json.decode(data, type=dict[str, Any])
        events: list[Event] = []
        if usage := chunk.get("usage"):
            self._usage = usage
            events.append(Used(usage))
        for choice in chunk.get("choices", ()):
            delta = choice.get("delta") or {"content": choice.get("text")}
            if reasoning := delta.get("reasoning_content") or delta.get("reasoning"):
                events.append(Text(reasoning, reasoning=True))
            if text := delta.get("content"):
                events.append(Text(text))
            if calls := delta.get("tool_calls"):
                events.append(ToolCalls([self._call(piece) for piece in calls]))
            self._reason = choice.get("finish_reason") or self._reason
        return events

    def _call(self, piece: Mapping[str, Any]) -> dict[str, Any]:
        """A piece of a tool call as OpenAI has it, numbered in the order of beginning: engines number them differently,
        and some repeat in later pieces what belongs in the first one alone."""
        index, given, function = piece.get("index", 0), piece.get("id"), piece.get("function") or {}
        arguments = function.get("arguments") or ""
        begins = given not in self._numbers if given else bool(function.get("name")) or index not in self._begun
        if not begins:
            return {"index": self._numbers[given or self._begun[index]], "function": {"arguments": arguments}}
        number = len(self._numbers)
        name = self._begun[index] = given or f"call_{number}"
        self._numbers[name] = number
        called = {"name": function.get("name") or "", "arguments": arguments}
        return {"index": number, "id": name, "type": "function", "function": called}
