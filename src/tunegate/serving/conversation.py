"""A chat around its question: what the release's prompt, its knowledge and its tools are asked. Pure.

The question is the last message of the user. What came before it goes to the model as it was said, between the
release's examples and its prompt; what came after it, such as the results of a client's own tools, follows the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunegate.prompts import Message
from tunegate.prompts.fence import break_up
from tunegate.serving.events import bad_request

Turn = Mapping[str, Any]


@dataclass(frozen=True)
class Conversation:
    """instructions: the client's own system message, which follows that of the release."""

    question: str
    instructions: str = ""
    earlier: tuple[Turn, ...] = ()
    later: tuple[Turn, ...] = ()

    @property
    def queries(self) -> tuple[str, ...]:
        """What is looked for: the question and, in case it says too little alone, the question with the one before."""
        before = next((_text(turn) for turn in reversed(self.earlier) if turn["role"] == "user"), None)
        return (self.question,) if before is None else (self.question, f"{self.question}\n{before}")

    def before(self, control_tokens: Sequence[str]) -> list[Message]:
        """The client's own system message and the earlier turns, as far as they are words of its two sides."""
        first = [Message("system", self.instructions)] if self.instructions else []
        said = [turn for turn in self.earlier if turn.get("content") is not None and turn["role"] != "tool"]
        turns = [*first, *(Message(turn["role"], _text(turn)) for turn in said)]
        return [Message(turn.role, break_up(turn.content, control_tokens)) for turn in turns]

    def under(self, prompt: Sequence[Message], control_tokens: Sequence[str]) -> list[dict[str, Any]]:
        """All messages: those of the release's prompt, whose last one asks the question, and the turns around it."""
        *first, asked = prompt
        system = [message.content for message in first if message.role == "system"]
        if self.instructions:
            system.append(break_up(self.instructions, control_tokens))
        head = [{"role": "system", "content": "\n\n".join(system)}] if system else []
        examples = [{"role": it.role, "content": it.content} for it in first if it.role != "system"]
        before = [_harmless(turn, control_tokens) for turn in self.earlier]
        after = [_harmless(turn, control_tokens) for turn in self.later]
        return [*head, *examples, *before, {"role": asked.role, "content": asked.content}, *after]


def read_conversation(messages: Sequence[Turn]) -> Conversation:
    """The conversation that a client sends. Raises ApiError 400 where nobody asks, or in anything but text."""
    at = next((i for i in reversed(range(len(messages))) if messages[i]["role"] == "user"), None)
    if at is None:
        raise bad_request("messages: none of them is the user's; add one with the role 'user'.", "messages")
    begin = int(messages[0]["role"] in ("system", "developer"))
    return Conversation(
        question=_text(messages[at]),
        instructions=_text(messages[0]) if begin else "",
        earlier=tuple(messages[begin:at]),
        later=tuple(messages[at + 1 :]),
    )


def _text(message: Turn) -> str:
    content = message.get("content")
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    texts = [text for part in parts if isinstance(part, dict) and isinstance(text := part.get("text"), str)]
    if not texts or len(texts) != len(parts):
        raise bad_request("The content of every message must be text; other parts are not served here.", "messages")
    return "\n".join(texts)


def _harmless(turn: Turn, control_tokens: Sequence[str]) -> dict[str, Any]:
    """The turn without control tokens in its text. One that calls tools may have none."""
    if turn.get("content") is None:
        return dict(turn)
    return {**turn, "content": break_up(_text(turn), control_tokens)}
