"""What people are asked about an answer, as a business suite says it."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from tunegate.api.codec import Resource


class Criterion(Resource, frozen=True, kw_only=True):
    """One question about an answer.

    question: what the reviewer decides. points: 2 is no or yes (0 or 1), more is a scale that begins with 1.
    passes: the least value that is good enough; by default yes, or the point below the highest.
    labels: what each point means, lowest first.
    """

    name: Annotated[str, Meta(pattern="^[a-z][a-z0-9_]*$", max_length=40)]
    question: str = ""
    points: Annotated[int, Meta(ge=2, le=9)] = 2
    passes: int = 0
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.name == "comment":
            raise ValueError("a criterion can't be called comment: every answer has one of those")
        if self.labels and len(self.labels) != self.points:
            raise ValueError(f"{self.name} has {self.points} points and {len(self.labels)} labels; give one for each")
        if self.passes and self.passes not in self.values:
            raise ValueError(f"{self.name} passes with {self.passes}, which is none of its values")

    @property
    def values(self) -> range:
        """What an answer may be given, lowest first."""
        return range(2) if self.points == 2 else range(1, self.points + 1)

    @property
    def least(self) -> int:
        """The least value that passes."""
        return self.passes or max(1, self.values[-1] - (self.points > 2))
