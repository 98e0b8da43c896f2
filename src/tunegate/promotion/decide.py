"""What a served model needs next, from what is seen now.

`decide` is called again and again with a fresh snapshot; nothing is remembered in between. Each promotion takes at
most one step along its phases per call. It may be called late, twice, or by another process: the answer depends on
the snapshot alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import msgspec

from tunegate.api.digest import short
from tunegate.api.feedback import Tally
from tunegate.api.policy import CanaryStep, PromotionPolicy
from tunegate.api.promotion import (
    TERMINAL,
    Comparison,
    Decision,
    Ending,
    Phase,
    Promotion,
    PromotionStatus,
    Transition,
)
from tunegate.api.versions import ModelVersion
from tunegate.promotion.analysis import compare
from tunegate.promotion.counting import SHOWN, shown, stable_version
from tunegate.promotion.gates import check_gates
from tunegate.promotion.snapshot import EvaluationJob, EvaluationState, Event, Plan, ServerState, Snapshot

MOST_TRANSITIONS = 400  # that are kept of one promotion


def decide(seen: Snapshot, now: datetime) -> Plan:
    """Say what should be true next. Pure: same snapshot and time, same plan."""
    created = () if seen.policy.suspend or seen.modified else _new_promotions(seen, now)
    stable = stable_version(seen)
    statuses = {
        promotion.name: _next_status(_View(seen, promotion, stable, now))
        for promotion in seen.promotions
        if promotion.status.phase not in TERMINAL
    }
    after = msgspec.structs.replace
    promotions = tuple(
        after(promotion, status=statuses.get(promotion.name, promotion.status)) for promotion in seen.promotions
    )
    return Plan(
        create=created,
        statuses={old.name: new.status for old, new in zip(seen.promotions, promotions, strict=True) if old != new},
        evaluations=_wanted_evaluations(seen, promotions, stable),
        servers=_wanted_servers(replace(seen, promotions=promotions)),
        weights=_wanted_weights(replace(seen, promotions=promotions)),
        events=tuple(
            Event(new.name, new.status.history[-1].reason, new.status.history[-1].message)
            for old, new in zip(seen.promotions, promotions, strict=True)
            if new.status.history[-1:] != old.status.history[-1:]
        ),
    )


def canary_steps(policy: PromotionPolicy) -> tuple[CanaryStep, ...]:
    """The steps that share the traffic. A step of 100 % is the promotion itself."""
    return tuple(step for step in policy.steps if step.weight < 100)


@dataclass(frozen=True)
class _View:
    """One promotion amid everything seen."""

    seen: Snapshot
    promotion: Promotion
    stable: ModelVersion
    now: datetime

    @property
    def status(self) -> PromotionStatus:
        return self.promotion.status

    @property
    def policy(self) -> PromotionPolicy:
        return self.seen.policy

    @property
    def candidate(self) -> ModelVersion:
        return self.promotion.candidate

    @property
    def server(self) -> ServerState:
        return self.seen.servers.get(self.candidate.digest, ServerState())

    def seconds_since(self, then: datetime) -> float:
        return (self.now - then).total_seconds()

    def entered(self, phase: Phase) -> datetime:
        """When the promotion last came into `phase` from another one."""
        return next(step.time for step in reversed(self.status.history) if step.phase == phase)

    def evaluation(self, version: ModelVersion, suite: str) -> EvaluationState:
        return self.seen.evaluations.get((version.digest, suite), EvaluationState())

    def to(self, phase: Phase, reason: str, message: str, **changes: object) -> PromotionStatus:
        """The status with a new phase (recorded in the history when it is new) and other changes."""
        status = msgspec.structs.replace(self.status, **changes)
        if phase == status.phase:
            return status
        step = Transition(phase=phase, time=self.now, reason=reason, message=message)
        history = status.history
        if len(history) >= MOST_TRANSITIONS:
            # A gateway that wavers for days must not fill the record: how it began and what was last are kept.
            history = (*history[: MOST_TRANSITIONS // 4], *history[-MOST_TRANSITIONS // 2 :])
        return msgspec.structs.replace(status, phase=phase, history=(*history, step))

    def end(
        self, outcome: Ending, reason: str, message: str, actor: str = "tunegate", **changes: object
    ) -> PromotionStatus:
        """Decide; where users may see the candidate, the traffic goes back first."""
        decision = Decision(outcome=outcome, reason=reason, message=message, time=self.now, actor=actor)
        phase: Phase = "Succeeded" if outcome == "Promoted" else outcome
        if outcome != "Promoted" and self.status.phase in SHOWN:
            phase = "RollingBack"
        return self.to(phase, reason, message, decision=decision, **changes)

    def give_up(self, reason: str, message: str) -> PromotionStatus:
        """Fail at once and leave the traffic as it is: a person has taken it over, and we don't fight people."""
        decision = self.status.decision or Decision(
            outcome="Failed", reason=reason, message=message, time=self.now, actor="tunegate"
        )
        return self.to("Failed", reason, message, decision=decision)


def _next_status(view: _View) -> PromotionStatus:
    phase = view.status.phase
    if view.seen.modified and phase in SHOWN:
        return view.give_up("TargetModified", view.seen.modified)
    if phase != "RollingBack":
        if abort := view.promotion.abort:
            return view.end("Aborted", "Aborted", abort.message or "no reason given", actor=abort.actor)
        if phase not in SHOWN and (newer := _newer(view)):
            return view.end("Superseded", "NewerVersion", f"{newer.candidate.name} is newer")
        if phase not in ("Pending", "Baking") and _is_overdue(view):
            limit = view.policy.deadline_seconds
            return view.end("Failed", "DeadlineExceeded", f"not decided within {limit:.0f} s; the stable stays")
    return _PHASES[phase](view)


def _pending(view: _View) -> PromotionStatus:
    if view.policy.suspend or view.seen.modified or shown(view.seen.promotions) or _is_held(view):
        return view.status
    return view.to("Verifying", "Started", f"against the stable {view.stable.name}", stable=view.stable)


def _verifying(view: _View) -> PromotionStatus:
    if view.seen.versions is None:
        return view.status
    listed = next((version for version in view.seen.versions if version.uri == view.candidate.uri), None)
    if listed is None:
        return view.end("Failed", "VersionMissing", f"{view.candidate.uri} is no longer in the store")
    if listed.digest != view.candidate.digest:
        message = f"{view.candidate.uri} now holds {listed.digest}, not {view.candidate.digest}"
        return view.end("Failed", "DigestMismatch", message)
    return view.to("Evaluating", "Verified", view.candidate.digest)


def _evaluating(view: _View) -> PromotionStatus:
    wanted = [(view.candidate, suite) for suite in view.policy.suites]
    wanted += [(view.stable, gate.suite) for gate in view.policy.gates if gate.max_regression is not None]
    states = [(version, suite, view.evaluation(version, suite)) for version, suite in wanted]
    for version, suite, state in states:
        if state.result is None and state.failures >= view.policy.evaluation_attempts:
            message = f"{suite} on {version.name} failed {state.failures} times: {state.message}"
            return view.end("Failed", "EvaluationFailed", message)
    if any(state.result is None for _, _, state in states):
        if view.seconds_since(view.entered("Evaluating")) > view.policy.evaluation_timeout_seconds:
            limit = view.policy.evaluation_timeout_seconds
            return view.end("Failed", "EvaluationTimeout", f"no result within {limit:.0f} s")
        return view.status
    return _gated(view)


def _gated(view: _View) -> PromotionStatus:
    results = [
        {suite: state.result for suite in view.policy.suites if (state := view.evaluation(version, suite)).result}
        for version in (view.candidate, view.stable)
    ]
    gates = check_gates(view.policy.gates, results[0], results[1])
    undecided = [gate.message for gate in gates if gate.passed is None]
    refused = [gate.message for gate in gates if gate.passed is False]
    if refused:
        return view.end("Rejected", "GateFailed", "; ".join(refused), gates=gates)
    if undecided:
        return view.end("Failed", "GateUndecided", "; ".join(undecided), gates=gates)
    if view.policy.approval == "Manual":
        return view.to("AwaitingApproval", "GatesPassed", f"{len(gates)} gates passed", gates=gates)
    return _start_canary(view, gates=gates)


def _awaiting_approval(view: _View) -> PromotionStatus:
    approval = view.promotion.approval
    if approval is None:
        return view.status
    if approval.verdict == "Rejected":
        return view.end("Rejected", "RejectedByPerson", approval.message or "no reason given", actor=approval.actor)
    return _start_canary(view, reason="Approved", message=f"by {approval.actor} {approval.message}".strip())


def _start_canary(
    view: _View, reason: str = "GatesPassed", message: str = "all gates passed", **changes: object
) -> PromotionStatus:
    phase: Phase = "Progressing" if canary_steps(view.policy) else "Promoting"
    return view.to(phase, reason, message, **changes)


def _progressing(view: _View) -> PromotionStatus:
    """Also the handler of Paused: they differ only in what the promotion is waiting for."""
    if view.server.failed:
        return view.end("Failed", "CanaryNotReady", view.server.message)
    steps = canary_steps(view.policy)
    if not steps:
        return view.to("Promoting", "StepsRemoved", "the policy has no canary steps any more")
    at = _step_index(view.status, steps)
    step = steps[at]
    observed = _observed(view)
    if observed != step.weight:
        weight = view.status.weight if observed is None else observed
        return view.to("Progressing", "WeightSet", f"{step.weight} % wished", weight=weight, step_observed=None)
    if view.status.step_observed is None:
        started = view.status.canary_started or view.now
        return view.to(
            "Paused",
            "WeightObserved",
            f"{observed} % of the traffic",
            weight=observed,
            step_observed=view.now,
            canary_started=started,
        )
    comparison = _compare(view)
    if comparison.outcome == "Worse":
        return view.end("RolledBack", "FeedbackWorse", comparison.message, comparison=comparison)
    is_last = at + 1 == len(steps)
    if not _is_step_done(view, step, comparison) or (is_last and comparison.outcome != "NotWorse"):
        return view.to("Paused", "Waiting", comparison.message, comparison=comparison)
    if is_last:
        return view.to("Promoting", "FeedbackNotWorse", comparison.message, comparison=comparison)
    message = f"{steps[at + 1].weight} % next"
    return view.to("Progressing", "StepDone", message, step=at + 1, step_observed=None, comparison=comparison)


def _step_index(status: PromotionStatus, steps: tuple[CanaryStep, ...]) -> int:
    """The step it is at; the last one when the policy has fewer by now."""
    return min(status.step, len(steps) - 1)


def _promoting(view: _View) -> PromotionStatus:
    if view.server.failed:
        return view.end("Failed", "CanaryNotReady", view.server.message)
    observed = _observed(view)
    if observed != 100:
        return view.to("Promoting", "", "", weight=view.status.weight if observed is None else observed)
    started = view.status.canary_started or view.now
    return view.to("Baking", "WeightObserved", "100 % of the traffic", weight=100, canary_started=started)


def _baking(view: _View) -> PromotionStatus:
    if view.server.failed:
        return view.end("RolledBack", "CandidateDown", view.server.message)
    comparison = _compare(view)
    if comparison.outcome == "Worse":
        return view.end("RolledBack", "FeedbackWorse", comparison.message, comparison=comparison)
    if view.seconds_since(view.entered("Baking")) >= view.policy.baking_seconds:
        baked = f"{view.policy.baking_seconds:.0f} s at 100 % without a sign of harm"
        return view.end("Promoted", "Baked", f"{comparison.message}; {baked}", comparison=comparison)
    return view.to("Baking", "", "", comparison=comparison)


def _rolling_back(view: _View) -> PromotionStatus:
    """Needs nothing but the route: neither feedback, nor the store, nor the evaluator."""
    decision = view.status.decision
    assert decision is not None, "RollingBack is entered with its decision"
    assert decision.outcome != "Promoted"
    observed = _observed(view)
    if observed is None or observed > 0:
        return view.to("RollingBack", "", "", weight=view.status.weight if observed is None else observed)
    stable = view.status.stable or view.stable
    return view.to(decision.outcome, "TrafficRestored", f"all of it goes to {stable.name}", weight=0)


_PHASES: dict[Phase, Callable[[_View], PromotionStatus]] = {
    "Pending": _pending,
    "Verifying": _verifying,
    "Evaluating": _evaluating,
    "AwaitingApproval": _awaiting_approval,
    "Progressing": _progressing,
    "Paused": _progressing,
    "Promoting": _promoting,
    "Baking": _baking,
    "RollingBack": _rolling_back,
}


def _new_promotions(seen: Snapshot, now: datetime) -> tuple[Promotion, ...]:
    """One attempt for each version that is newer than all tried ones; a digest is never tried twice."""
    tried = {promotion.candidate.digest for promotion in seen.promotions} | {seen.initial.digest}
    newest = max((promotion.candidate.created for promotion in seen.promotions), default=None)
    fresh = [
        version
        for version in _candidates(seen)
        if version.digest not in tried and (newest is None or version.created > newest)
    ]
    return tuple(
        Promotion(name=f"{version.model}-{version.run}-{short(version.digest)}", created=now, candidate=version)
        for version in fresh
    )


def _candidates(seen: Snapshot) -> tuple[ModelVersion, ...]:
    versions = seen.versions or ()
    if seen.policy.candidates == "EveryCheckpoint":
        return versions
    last = {version.run: version for version in versions}
    return tuple(version for version in last.values() if version.run in seen.finished_runs)


def _newer(view: _View) -> Promotion | None:
    return next(
        (
            other
            for other in view.seen.promotions
            if other.candidate.created > view.candidate.created and other.status.phase not in TERMINAL
        ),
        None,
    )


def _is_overdue(view: _View) -> bool:
    return view.seconds_since(view.entered("Verifying")) > view.policy.deadline_seconds


def _is_held(view: _View) -> bool:
    """After a rollback, users are left in peace for a while."""
    rollbacks = [
        other.status.decision.time
        for other in view.seen.promotions
        if other.status.decision and other.status.decision.outcome == "RolledBack"
    ]
    return bool(rollbacks) and view.now < max(rollbacks) + timedelta(seconds=view.policy.hold_seconds)


def _observed(view: _View) -> int | None:
    """The candidate's share of the traffic as the route shows it; None when the route can't be read."""
    return None if view.seen.weights is None else view.seen.weights.get(view.candidate.digest, 0)


def _compare(view: _View) -> Comparison:
    tallies = view.seen.tallies
    stable = view.status.stable or view.stable
    counts = [None if tallies is None else tallies.get(v.digest, Tally()) for v in (view.candidate, stable)]
    return compare(counts[0], counts[1], view.policy.feedback)


def _is_step_done(view: _View, step: CanaryStep, comparison: Comparison) -> bool:
    assert view.status.step_observed is not None
    paused = view.seconds_since(view.status.step_observed) >= step.pause_seconds
    # Without the counts nothing is known of the users, so nothing grows.
    return paused and comparison.candidate is not None and comparison.candidate.n >= step.min_verdicts


def _wanted_weights(seen: Snapshot) -> dict[str, int]:
    if seen.modified:
        return {}
    stable, promotion = stable_version(seen), shown(seen.promotions)
    share = 0
    if promotion and promotion.status.phase != "RollingBack":
        steps = canary_steps(seen.policy)
        is_shared = steps and promotion.status.phase not in ("Promoting", "Baking")
        share = steps[_step_index(promotion.status, steps)].weight if is_shared else 100
        if not seen.servers.get(promotion.candidate.digest, ServerState()).ready:
            # Not ready yet, or down for a moment: traffic stays where it was last seen, but none goes there first.
            share = min(share, (seen.weights or {}).get(promotion.candidate.digest, 0))
    if not promotion or share == 0:
        return {stable.digest: 100}
    return {stable.digest: 100 - share, promotion.candidate.digest: share}


def _wanted_servers(seen: Snapshot) -> tuple[ModelVersion, ...]:
    """The stable, the candidate users may see, and whatever the route still points at: pods stay until it moved on."""
    promotion = shown(seen.promotions)
    wanted = [stable_version(seen), *([promotion.candidate] if promotion else [])]
    known = [seen.initial, *(promotion.candidate for promotion in seen.promotions)]
    routed = [version for version in known if (seen.weights or {}).get(version.digest, 0) > 0]
    return tuple({version.digest: version for version in (*wanted, *routed)}.values())


def _wanted_evaluations(
    seen: Snapshot, promotions: tuple[Promotion, ...], stable: ModelVersion
) -> tuple[EvaluationJob, ...]:
    """Candidates that wait for their gates first, then the stable for comparison, then every other checkpoint."""
    waiting = [promotion.candidate for promotion in promotions if promotion.status.phase == "Evaluating"]
    versions = {version.digest: version for version in (*waiting, stable, *reversed(seen.versions or ()))}
    limit = seen.policy.evaluation_attempts
    return tuple(
        EvaluationJob(version, suite)
        for version in versions.values()
        for suite in seen.policy.suites
        if (state := seen.evaluations.get((version.digest, suite), EvaluationState())).result is None
        and state.failures < limit
    )
