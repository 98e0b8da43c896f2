"""The log of answers: one record for each, with its numbers and, unless that is switched off, its texts.

What users say of an answer is in the log of votes. Both lie by the day of the answer, and whoever reads a day joins
them by the response id, whichever came first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import Any, Literal

import msgspec

from tunegate.api.codec import Document, Resource, prepare
from tunegate.api.feedback import FeedbackRecord, StepTag
from tunegate.feedback.redact import redact
from tunegate.feedback.segments import Documents, days_in, records_in

FOLDER = ".tunegate/interactions"


class ReleaseParts(Resource, frozen=True, kw_only=True):
    """What was served besides the weights: digests, and the names of tools."""

    prompts: str | None = None
    knowledge: str | None = None
    tools: tuple[str, ...] = ()


class Content(Resource, frozen=True, kw_only=True):
    """The texts of an answer, redacted. messages: what was asked, in OpenAI's form; a prompt is one of the user's.

    steps, sources: what tools were asked and said, and what the answer could cite.
    """

    messages: tuple[dict[str, Any], ...] = ()
    answer: str = ""
    reasoning: str = ""
    steps: tuple[dict[str, Any], ...] = ()
    sources: tuple[dict[str, Any], ...] = ()


class Interaction(Document, frozen=True, kw_only=True):
    """One answer, also one that broke off.

    id: its response id. digest: the version that gave it, in `step` of a promotion. user: the tag of one user of the
    version on one day. conversation: stands for the client's `x-conversation-id`. prompt_template: the one that the
    model was asked by. tools: how often each tool was asked. finish: as engines say it, or why it broke off. Tokens are
    None where the engine did not say them; seconds are counted from the request.
    """

    schema: Literal["tunegate.io/interaction/v1"] = "tunegate.io/interaction/v1"
    id: str
    model: str
    digest: str
    release: ReleaseParts = ReleaseParts()
    step: StepTag | None = None
    user: str | None = None
    conversation: str | None = None
    answered: datetime
    finish: str
    prompt_template: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    first_text_seconds: float | None = None
    seconds: float
    tools: dict[str, int] = {}
    tool_failures: int = 0
    sources: int = 0
    content: Content | None = None


class Judged(Resource, frozen=True, kw_only=True):
    """An answer with what was said of it. An answer of a server that does not log them is known by its vote alone."""

    interaction: Interaction | None
    vote: FeedbackRecord | None


def redacted(interaction: Interaction) -> Interaction:
    """The same without what tells who somebody is in its texts."""
    if interaction.content is None:
        return interaction
    plain = msgspec.to_builtins(interaction.content)
    return msgspec.structs.replace(interaction, content=msgspec.convert(_redact_all(plain), Content))


def _redact_all(value: Any) -> Any:
    if isinstance(value, str):
        return f"<{len(value)} characters of data>" if value.startswith("data:") else redact(value)
    if isinstance(value, Mapping):
        return {_redact_all(key): _redact_all(item) for key, item in value.items()}
    if isinstance(value, int) and (plain := redact(text := str(value))) != text:  # tools get phones as numbers
        return plain
    return [_redact_all(item) for item in value] if isinstance(value, Sequence) else value


def days(store: Documents) -> list[date]:
    """The days of which the log has answers, oldest first."""
    return days_in(store, FOLDER)


def read_day(store: Documents, day: date, damaged: list[str]) -> Iterator[Interaction]:
    """The answers of a UTC day, each once. What can't be read is told in `damaged`, in sentences."""
    seen = set[str]()
    for entry in store.entries(f"{FOLDER}/{day.isoformat()}/"):
        for interaction in records_in(entry.key, store.get(entry.key) or b"", Interaction, damaged):
            if interaction.id not in seen:
                seen.add(interaction.id)
                yield interaction


def text_of(content: Any) -> str:
    """What a message in OpenAI's form says; of one in parts the texts."""
    if isinstance(content, list | tuple):
        content = "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content.strip() if isinstance(content, str) else ""


def question_of(messages: Sequence[Mapping[str, Any]]) -> str:
    """What the user asked last."""
    return next((text_of(said.get("content")) for said in reversed(messages) if said.get("role") == "user"), "")


prepare(Interaction, Judged)
