"""What every layout of records becomes: the messages of a dialogue, as chat templates take them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from tunegate.api.codec import prepare

Role = Literal["system", "user", "assistant", "tool"]


class ToolCall(msgspec.Struct, frozen=True):
    """A call of a tool by its name; `arguments` is what their JSON says, not its text."""

    name: str
    arguments: dict[str, Any] = {}
    id: str = ""


class Message(msgspec.Struct, frozen=True):
    """One turn: what is said, what was thought before, and which tools are called.

    An answer whose `trained` is False is read and not learned. `tool_call_id`: the call that a tool's turn answers.
    """

    role: Role
    content: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    name: str = ""
    tool_call_id: str = ""
    trained: bool = True

    def for_template(self) -> dict[str, Any]:
        """The message by OpenAI's keys, without those that hold nothing: what `apply_chat_template` takes."""
        found: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.reasoning:
            found["reasoning_content"] = self.reasoning
        if self.tool_calls:
            found["tool_calls"] = [
                ({"id": call.id} if call.id else {})
                | {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in self.tool_calls
            ]
        if self.name:
            found["name"] = self.name
        if self.tool_call_id:
            found["tool_call_id"] = self.tool_call_id
        return found


class Dialogue(msgspec.Struct, frozen=True):
    """Messages that end with an answer, and the tools it may call, each as OpenAI describes a function."""

    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] = ()


prepare(Dialogue)
