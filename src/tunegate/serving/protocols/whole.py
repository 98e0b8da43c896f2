"""What an answer is so far: its events, joined."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tunegate.serving.events import Cited, Event, Finished, Sources, Step, Text, ToolCalls, Used


@dataclass
class Whole:
    """calls: tool calls in OpenAI's form, without their index. sources, reason, usage: None until they are known."""

    text: str = ""
    reasoning: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    sources: Sources | None = None
    citations: list[Cited] = field(default_factory=list)
    cited: tuple[int, ...] | None = None
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
            case Step():
                self.steps.append(event)
            case Sources():
                self.sources = event
            case Cited():
                self.citations.append(event)
            case Used(usage):
                self.usage = usage
            case Finished(reason, usage, cited):
                self.reason, self.cited = reason, cited
                self.usage = usage or self.usage

    def message(self) -> dict[str, Any]:
        """The answer as a message, in OpenAI's form."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text}
        if self.reasoning:
            message["reasoning_content"] = self.reasoning
        if self.calls:
            message["tool_calls"] = self.calls
        if self.citations:
            message["annotations"] = [annotation(cited) for cited in self.citations]
        return message

    def beside(self) -> dict[str, Any]:
        """What else is known of the answer: its steps, its sources, and which of them it cites."""
        found: dict[str, Any] = {"steps": self.steps} if self.steps else {}
        if self.sources:
            found["sources"] = self.sources.sources
        return found if self.cited is None else {**found, "cited": self.cited}


def annotation(cited: Cited) -> dict[str, Any]:
    """A citation in OpenAI's form."""
    place = {"start_index": cited.start, "end_index": cited.end}
    return {"type": "url_citation", "url_citation": {**place, "url": cited.source.uri, "title": cited.source.title}}


def joined(events: Iterable[Event]) -> Whole:
    """The answer that `events` make."""
    whole = Whole()
    for event in events:
        whole.add(event)
    return whole
