"""PromotionPolicy: how candidates of one served model become its stable version, or don't."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from msgspec import Meta

from tunegate.api.codec import Resource

Seconds = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0)]


class Gate(Resource, frozen=True, kw_only=True):
    """A bound on one metric of one suite. Exactly one of `min`, `max`, `max_regression` is set.

    `max_regression` is how much worse than the stable version the candidate may be, in the metric's own unit.
    """

    suite: str
    metric: str
    min: float | None = None
    max: float | None = None
    max_regression: Annotated[float, Meta(ge=0)] | None = None

    def __post_init__(self) -> None:
        bounds = [bound for bound in (self.min, self.max, self.max_regression) if bound is not None]
        if len(bounds) != 1 or not math.isfinite(bounds[0]):
            raise ValueError(
                f"gate on {self.suite}/{self.metric} needs exactly one finite bound of min, max and maxRegression"
            )


class CanaryStep(Resource, frozen=True, kw_only=True):
    """A share of the traffic for the candidate, and what must have happened before it grows.

    weight: percent of the answers, 1..100.
    pause_seconds: time at the observed weight.
    min_verdicts: judged answers of the candidate, counted from the start of the canary.
    """

    weight: Annotated[int, Meta(ge=1, le=100)]
    pause_seconds: Seconds = 0
    min_verdicts: Count = 0


class FeedbackGuard(Resource, frozen=True, kw_only=True):
    """The sequential comparison of thumbs down between candidate and concurrent stable.

    alpha: chance of rolling back a candidate that is no worse than the stable, over the whole promotion.
    margin: a candidate whose share of thumbs down is less than this above the stable's counts as not worse.
    min_verdicts: judged answers needed of the candidate before any conclusion is drawn.
    """

    alpha: Annotated[float, Meta(gt=0, lt=1)] = 0.05
    margin: Annotated[float, Meta(gt=0, lt=1)] = 0.1
    min_verdicts: Annotated[int, Meta(ge=1)] = 10


class PromotionPolicy(Resource, frozen=True, kw_only=True):
    """Long-lived, one per served model.

    initial_version: URI of the version that serves before anything was promoted.
    deadline_seconds: a promotion that has not ended by then is Failed and the stable keeps the traffic.
    hold_seconds: after a rollback no new candidate is shown to users for this long.
    candidates: whether every checkpoint may be promoted, or only the last one of a run whose training job succeeded.
    """

    model: str
    initial_version: str
    suites: tuple[str, ...]
    gates: tuple[Gate, ...]
    steps: tuple[CanaryStep, ...]
    feedback: FeedbackGuard = FeedbackGuard()
    approval: Literal["Automatic", "Manual"] = "Automatic"
    baking_seconds: Seconds = 3600
    evaluation_attempts: Annotated[int, Meta(ge=1)] = 2
    evaluation_timeout_seconds: Seconds = 3600
    deadline_seconds: Seconds = 86400
    hold_seconds: Seconds = 0
    candidates: Literal["EveryCheckpoint", "FinishedRuns"] = "EveryCheckpoint"
    suspend: bool = False

    def __post_init__(self) -> None:
        weights = [step.weight for step in self.steps]
        if not weights or weights != sorted(set(weights)):
            raise ValueError("steps need weights that ascend, such as 10, 50, 100")
        if not self.initial_version.endswith("/"):
            raise ValueError("initialVersion must end in '/': a prefix without it also matches its neighbors")
        if unknown := {gate.suite for gate in self.gates} - set(self.suites):
            raise ValueError(f"gates name suites that are not evaluated: {', '.join(sorted(unknown))}")
