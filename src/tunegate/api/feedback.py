"""What users say of an answer, and how it adds up."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from tunegate.api.codec import Document, Resource

Verdict = Literal["up", "down"]
Text = Annotated[str, Meta(max_length=4000)]


class Feedback(Resource, frozen=True, kw_only=True, rename=None):
    """The body of `POST /v1/feedback`; snake_case on the wire like the OpenAI routes beside it."""

    response_id: Annotated[str, Meta(max_length=512)]
    verdict: Verdict
    rating: Annotated[int, Meta(ge=1, le=5)] | None = None
    tags: Annotated[tuple[Annotated[str, Meta(max_length=64)], ...], Meta(max_length=16)] = ()
    comment: Text | None = None
    correction: Text | None = None


class FeedbackRecord(Document, frozen=True, kw_only=True):
    """Feedback as it is kept: resolved to the digest of the version that gave the answer."""

    schema: Literal["tunegate.io/feedback/v1"] = "tunegate.io/feedback/v1"
    digest: str
    answered: datetime
    received: datetime
    feedback: Feedback


class Tally(Resource, frozen=True, kw_only=True):
    """How many answers of one version were judged, each answer once."""

    up: int = 0
    down: int = 0

    @property
    def n(self) -> int:
        return self.up + self.down
