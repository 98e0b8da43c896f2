"""What an experience review says. All of it is counted or quoted; nothing is guessed."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Annotated, Any, Literal

from msgspec import Meta

from tunegate.api.codec import Document, Resource

Kind = Literal["all", "topic", "prompt", "source", "tool", "version"]
OTHER = "(other)"
"""The group of what belongs to no topic, or was asked without a prompt template."""


class Period(Resource, frozen=True, kw_only=True):
    """Days in UTC, both included."""

    since: date
    until: date

    def __post_init__(self) -> None:
        if self.since > self.until:
            raise ValueError(f"the period begins on {self.since} and ends before, on {self.until}")

    @property
    def before(self) -> Period:
        """As many days, just before."""
        days = self.until - self.since + timedelta(days=1)
        return Period(since=self.since - days, until=self.until - days)


class Share(Resource, frozen=True, kw_only=True):
    """How many of the judged answers were disliked, with Wilson's 95 % interval."""

    down: int
    judged: int
    low: float
    high: float

    @property
    def value(self) -> float:
        return self.down / self.judged


class Group(Resource, frozen=True, kw_only=True):
    """Answers that have something in common.

    share, before: of the period and of the one before it; None where nothing was judged. answers: also those that
    nobody judged. drift: the probability of a change like this by chance (Fisher's exact test), times the number of
    groups of this kind, so that one of many does not stand out by chance alone.
    """

    kind: Kind
    name: str
    answers: int
    answers_before: int
    share: Share | None
    before: Share | None
    drift: float | None

    @property
    def is_worse(self) -> bool:
        """Disliked more than before, beyond chance."""
        return bool(self.drift is not None and self.drift < 0.05 and self._change > 0)

    @property
    def is_better(self) -> bool:
        return bool(self.drift is not None and self.drift < 0.05 and self._change < 0)

    @property
    def _change(self) -> float:
        return self.share.value - self.before.value if self.share and self.before else 0.0


class Disliked(Resource, frozen=True, kw_only=True):
    """An answer that a user disliked, with what they said of it.

    id: stands for the answer, but gives nobody the right to judge it. messages: in OpenAI's form, without the answer.
    """

    id: Annotated[str, Meta(pattern="^[0-9a-f]{16}$")]
    topic: str = OTHER
    conversation: str = ""
    day: date
    digest: str
    messages: tuple[dict[str, Any], ...]
    answer: str
    rating: int | None = None
    tags: tuple[str, ...] = ()
    comment: str = ""
    correction: str = ""
    prompt: str = ""
    sources: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()


class Experience(Document, frozen=True, kw_only=True):
    """groups: the most disliked answers first, by kind. reasons: the tags that users gave, by how many gave them.

    worst: one answer of each conversation, the ones that say most first. proposals: what reviewers are to decide on,
    topics in turn.
    """

    schema: Literal["tunegate.io/experience/v1"] = "tunegate.io/experience/v1"
    period: Period
    groups: tuple[Group, ...]
    reasons: dict[str, int]
    worst: tuple[Disliked, ...]
    proposals: tuple[Disliked, ...]
    notes: tuple[str, ...]

    def of(self, kind: Kind) -> tuple[Group, ...]:
        return tuple(group for group in self.groups if group.kind == kind)
