"""Promotion: one attempt to make a candidate the stable version; its status is the audit record."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from tunegate.api.codec import Resource, prepare
from tunegate.api.feedback import Tally
from tunegate.api.versions import ModelVersion

Phase = Literal[
    "Pending",
    "Verifying",
    "Evaluating",
    "AwaitingApproval",
    "Progressing",
    "Paused",
    "Promoting",
    "Baking",
    "RollingBack",
    "RolledBack",
    "Succeeded",
    "Rejected",
    "Failed",
    "Aborted",
    "Superseded",
]
TERMINAL: frozenset[Phase] = frozenset({"RolledBack", "Succeeded", "Rejected", "Failed", "Aborted", "Superseded"})

Outcome = Literal["Worse", "NotWorse", "Inconclusive"]
Ending = Literal["Promoted", "Rejected", "RolledBack", "Failed", "Aborted", "Superseded"]


class GateResult(Resource, frozen=True, kw_only=True):
    """One gate, decided. `passed` is None when the numbers it needs are missing: that is never a pass.

    basis: what was held against the threshold. low, high: the 95 % interval of `observed`, or, where a gate on the
    interval or on pairs compares with the stable, of the candidate's number less the stable's. more: about how many
    more questions would have let the same numbers pass; None where that can't be told.
    """

    suite: str
    metric: str
    bound: Literal["min", "max", "maxRegression"]
    threshold: float
    passed: bool | None = None
    observed: float | None = None
    stderr: float | None = None
    n: int = 0
    stable: float | None = None
    basis: Literal["Value", "Interval", "Paired"] = "Value"
    low: float | None = None
    high: float | None = None
    more: int | None = None
    message: str


class StepVerdicts(Resource, frozen=True, kw_only=True):
    """What users said of both versions in one step, by its index."""

    step: int
    candidate: Tally = Tally()
    stable: Tally = Tally()


class Comparison(Resource, frozen=True, kw_only=True):
    """The sequential test at one look: evidence as e-values, to be held against 1/alpha.

    candidate, stable: over all steps. steps: in each step that has any verdicts, from which the evidence is made.
    answers_needed: judged answers of the candidate still needed for a conclusion if rates stay as seen; None when
    that can't be told.
    """

    outcome: Outcome
    candidate: Tally | None = None
    stable: Tally | None = None
    steps: tuple[StepVerdicts, ...] = ()
    evidence_worse: float
    evidence_not_worse: float
    threshold: float
    answers_needed: int | None = None
    message: str


class Decision(Resource, frozen=True, kw_only=True):
    """How the attempt ended: in one word, with the reason and who decided."""

    outcome: Ending
    reason: str
    message: str
    time: datetime
    actor: str = "tunegate"


class Transition(Resource, frozen=True, kw_only=True):
    """weight: the candidate's observed share of the traffic in percent then; 0 in those that 0.1.0 wrote."""

    phase: Phase
    time: datetime
    reason: str
    message: str
    weight: int = 0


class Recorded(Resource, frozen=True, kw_only=True):
    """Where the signed record of a promotion that is over stands in the store.

    key: of its document. digest: of the statement in it. signed_by: the id of the key. departure: the key of what was
    added when the version left; empty before.
    """

    key: str
    digest: str
    signed_by: str
    departure: str = ""


class PromotionStatus(Resource, frozen=True, kw_only=True):
    """What happened so far. `weight` is the observed share of the candidate in percent, never the desired one.

    baked: when it had baked without a sign of harm, and is to get all of the traffic.
    waiting: what a canary step waits for, with the numbers; empty while it waits for nothing.
    record: None until it is over and its record is written.
    vouched_for_by: who says that the weights that answer are the candidate's; empty where tunegate holds them to its
    digest.
    """

    phase: Phase = "Pending"
    stable: ModelVersion | None = None
    vouched_for_by: str = ""
    step: int = 0
    weight: int = 0
    canary_started: datetime | None = None
    step_observed: datetime | None = None
    gates: tuple[GateResult, ...] = ()
    comparison: Comparison | None = None
    baked: datetime | None = None
    waiting: str = ""
    decision: Decision | None = None
    history: tuple[Transition, ...] = ()
    record: Recorded | None = None


class RunChoice(Resource, frozen=True, kw_only=True):
    """The checkpoint of a run that may be promoted, with the numbers why; empty while none is, and `message` says why.

    version: its name.
    """

    run: str
    version: str = ""
    digest: str = ""
    message: str


class Approval(Resource, frozen=True, kw_only=True):
    verdict: Literal["Approved", "Rejected"]
    actor: str
    message: str = ""


class Abort(Resource, frozen=True, kw_only=True):
    """A person's word to stop: where users see the candidate, the traffic goes back."""

    actor: str
    message: str = ""


class Promotion(Resource, frozen=True, kw_only=True):
    """One attempt. `approval` and `abort` are what a person says; everything in `status` is ours."""

    name: str
    created: datetime
    candidate: ModelVersion
    approval: Approval | None = None
    abort: Abort | None = None
    status: PromotionStatus = PromotionStatus()


prepare(Promotion, Approval, Abort, RunChoice)
