"""What an answer is so far: its events, joined."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tunegate.serving.events import Event, Finished, Text, ToolCalls, Used


@dataclass
class Whole:
    """calls: tool calls in OpenAI's form, without their index. reason, usage: None until they are known."""

    text: str = ""
    reasoning: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    reason: str | None = None
    usage: Mapping[str, Any] | None = None

    def add(self, event: Event) -> None:
        match event:
            case Text(delta, reasoning):
                if reasoning:
                    self.reasoning += delta
                else:
                    self.text += delta
            case ToolCalls(pieces):
                for piece in pieces:
                    if piece["index"] == len(self.calls):
                        call = {key: value for key, value in piece.items() if key != "index"}
                        self.calls.append({**call, "function": dict(piece["function"])})
                    else:
                        self.calls[piece["index"]]["function"]["arguments"] += piece["function"]["arguments"]
            case Used(usage):
                self.usage = usage
            case Finished(reason, usage):
                self.reason = reason
                self.usage = usage or self.usage

    def message(self) -> dict[str, Any]:
        """The answer as a message, in OpenAI's form."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text}
        if self.reasoning:
            message["reasoning_content"] = self.reasoning
        if self.calls:
            message["tool_calls"] = self.calls
        return message


def joined(events: Iterable[Event]) -> Whole:
    """The answer that `events` make."""
    whole = Whole()
    for event in events:
        whole.add(event)
    return whole
