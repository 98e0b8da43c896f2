"""What users say of an answer, and how it adds up."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from tunegate.api.codec import Document, Resource, prepare

Verdict = Literal["up", "down"]
MOST_CHARACTERS, MOST_TAG_CHARACTERS = 4000, 64
Text = Annotated[str, Meta(max_length=MOST_CHARACTERS)]
StepTag = Annotated[str, Meta(pattern="^[0-9a-f]{10}/[0-9]{1,3}$")]
"""A step of a promotion as response ids, votes and metrics name it: `<promotion_tag>/<index>`."""


def promotion_tag(name: str) -> str:
    """Ten hex digits that stand for a promotion, named with its namespace, where its name would be too long."""
    return hashlib.sha256(name.encode()).hexdigest()[:10]


def step_tag(promotion: str, step: int) -> StepTag:
    """The tag of the step with index `step` (baking is the one after the last) of the promotion of this name."""
    return f"{promotion_tag(promotion)}/{step}"


class Feedback(Resource, frozen=True, kw_only=True, rename=None):
    """The body of `POST /v1/feedback`; snake_case on the wire like the OpenAI routes beside it."""

    response_id: Annotated[str, Meta(max_length=512)]
    verdict: Verdict
    rating: Annotated[int, Meta(ge=1, le=5)] | None = None
    tags: Annotated[tuple[Annotated[str, Meta(max_length=MOST_TAG_CHARACTERS)], ...], Meta(max_length=16)] = ()
    comment: Text | None = None
    correction: Text | None = None


class FeedbackRecord(Document, frozen=True, kw_only=True):
    """Feedback as it is kept: resolved to the digest of the version that gave the answer.

    step: the step of the promotion beside whose other version it was given; None where nothing was being promoted, for
    answers that were asked for past the route, and for those that 0.1.0 gave. user: the tag of one user of the version
    on one day; None for an unnamed one.
    """

    schema: Literal["tunegate.io/feedback/v1"] = "tunegate.io/feedback/v1"
    digest: str
    step: StepTag | None = None
    user: str | None = None
    answered: datetime
    received: datetime
    feedback: Feedback


class Struck(Document, frozen=True, kw_only=True):
    """That the server of a version gave answers that were not the version's: none from `since` to `until` is evidence.

    since: when it was last seen to answer as it should. until: when it was seen not to. reason: a sentence for people.
    """

    schema: Literal["tunegate.io/struck/v1"] = "tunegate.io/struck/v1"
    digest: str
    since: datetime
    until: datetime
    reason: str

    def covers(self, answered: datetime) -> bool:
        """Whether an answer that this version's server gave then is none of the version's."""
        return self.since <= answered <= self.until


class Tally(Resource, frozen=True, kw_only=True):
    """How many answers of one version were judged, each answer once."""

    up: int = 0
    down: int = 0

    @property
    def n(self) -> int:
        return self.up + self.down


Verdicts = Mapping[int | None, Tally]
"""The verdicts on one version by step of a promotion, counted from 0; None: on answers that were given in no step."""


prepare(FeedbackRecord, Struck, Tally)
