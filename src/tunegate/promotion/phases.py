"""The phases of a promotion that is not over: for each, what the status is next, from what is seen now.

Each handler takes at most one step. Where the numbers it needs are missing, the status stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from tunegate.api.evaluation import is_by_judge, is_reviewed
from tunegate.api.policy import CanaryStep, PromotionPolicy
from tunegate.api.promotion import TERMINAL, Comparison, Decision, Ending, Phase, Promotion, PromotionStatus, Transition
from tunegate.api.versions import ModelVersion
from tunegate.promotion.analysis import compare
from tunegate.promotion.counting import SHOWN, shown
from tunegate.promotion.desired import baking_weight, canary_steps, compared_weights, step_index
from tunegate.promotion.gates import check_gates
from tunegate.promotion.pairs import wanted_pairs
from tunegate.promotion.runs import run_choices
from tunegate.promotion.sample_ratio import mismatch
from tunegate.promotion.snapshot import EvaluationState, ServerState, Snapshot

MOST_TRANSITIONS = 400  # that are kept of one promotion


@dataclass(frozen=True)
class View:
    """One promotion, and everything that its next status may depend on."""

    snapshot: Snapshot
    promotion: Promotion
    stable: ModelVersion
    now: datetime

    @property
    def status(self) -> PromotionStatus:
        return self.promotion.status

    @property
    def policy(self) -> PromotionPolicy:
        return self.snapshot.policy

    @property
    def candidate(self) -> ModelVersion:
        return self.promotion.candidate

    @property
    def server(self) -> ServerState:
        return self.snapshot.servers.get(self.candidate.digest, ServerState())

    def seconds_since(self, then: datetime) -> float:
        return (self.now - then).total_seconds()

    def entered(self, phase: Phase) -> datetime:
        """When the promotion last came into `phase` from another one."""
        return next(step.time for step in reversed(self.status.history) if step.phase == phase)

    def evaluation(self, version: ModelVersion, suite: str) -> EvaluationState:
        return self.snapshot.evaluations.get((version.digest, suite), EvaluationState())

    def to(self, phase: Phase, reason: str, message: str, **changes: object) -> PromotionStatus:
        """The status with a new phase (recorded in the history when it is new) and other changes."""
        status = msgspec.structs.replace(self.status, **{"waiting": "", **changes})
        if phase == status.phase:
            return status
        step = Transition(phase=phase, time=self.now, reason=reason, message=message, weight=status.weight)
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

    def stop_as_stable(self) -> PromotionStatus:
        """End at once: there is nothing to promote, and no traffic that could go back to another version."""
        message = f"{self.candidate.name} is the stable version already"
        decision = Decision(outcome="Superseded", reason="AlreadyStable", message=message, time=self.now)
        return self.to("Superseded", "AlreadyStable", message, decision=decision)

    def observed(self) -> int | None:
        """The candidate's share of the traffic as the route shows it; None when the route can't be read."""
        weights = self.snapshot.weights
        return None if weights is None else weights.get(self.candidate.digest, 0)

    def compare(self) -> Comparison:
        """The verdicts on the candidate against those on the stable beside it."""
        tallies, stable = self.snapshot.tallies, self.status.stable or self.stable
        weights = compared_weights(self.policy)
        if tallies is None:
            return compare(None, None, self.policy.feedback, weights)
        candidate = tallies.get(self.candidate.digest, {})
        return compare(candidate, tallies.get(stable.digest, {}), self.policy.feedback, weights)

    def roll_back(self, comparison: Comparison) -> PromotionStatus:
        return self.end("RolledBack", "FeedbackWorse", comparison.message, comparison=comparison)

    def held_until(self) -> datetime | None:
        """After a rollback, users are left in peace for a while."""
        rollbacks = [
            other.status.decision.time
            for other in self.snapshot.promotions
            if other.status.decision and other.status.decision.outcome == "RolledBack"
        ]
        return max(rollbacks) + timedelta(seconds=self.policy.hold_seconds) if rollbacks else None

    def newer(self) -> Promotion | None:
        """An attempt with a newer candidate that is not over."""
        return next(
            (
                other
                for other in self.snapshot.promotions
                if other.candidate.created > self.candidate.created and other.status.phase not in TERMINAL
            ),
            None,
        )


def turn_after(view: View) -> str:
    """What a promotion that is Pending waits for, as a sentence; empty when it is its turn."""
    if view.policy.suspend:
        return "spec.suspend of the policy is true"
    if view.snapshot.modified:
        return view.snapshot.modified
    if other := shown(view.snapshot.promotions):
        return f"users see {other.candidate.name}, and one candidate at a time"
    if (until := view.held_until()) and view.now < until:
        return f"users are left in peace until {until:%Y-%m-%d %H:%M:%S} UTC, for holdSeconds after a rollback"
    return ""


def pending(view: View) -> PromotionStatus:
    """Waiting for its turn: one candidate at a time is shown to users."""
    if turn_after(view):
        return view.status
    chosen = (each.message for each in run_choices(view.snapshot) if each.digest == view.candidate.digest)
    message = "; ".join((f"against the stable {view.stable.name}", *chosen))
    vouched = view.policy.vouched_for_by
    return view.to("Verifying", "Started", message, stable=view.stable, vouched_for_by=vouched)


def verifying(view: View) -> PromotionStatus:
    """Whether the store still has the candidate, with the same digest, and whether it fits where it is to be served."""
    if view.snapshot.versions is None:
        return view.status
    listed = next((version for version in view.snapshot.versions if version.uri == view.candidate.uri), None)
    if listed is None:
        return view.end("Failed", "VersionMissing", f"{view.candidate.uri} is no longer in the store")
    if listed.digest != view.candidate.digest:
        message = f"{view.candidate.uri} now holds {listed.digest}, not {view.candidate.digest}"
        return view.end("Failed", "DigestMismatch", message)
    misfit = view.snapshot.misfits.get(view.candidate.digest, "")
    if misfit is None:
        return view.status
    if misfit:
        return view.end("Failed", "DoesNotFit", f"{view.candidate.name} {misfit}")
    return view.to("Evaluating", "Verified", view.candidate.digest)


def evaluating(view: View) -> PromotionStatus:
    """Waiting for the evaluations of the candidate and of the stable beside it, then the gates."""
    wanted = [(view.candidate, suite) for suite in view.policy.suites]
    wanted += [(view.stable, gate.suite) for gate in view.policy.gates if gate.max_regression is not None]
    states = [(version, suite, view.evaluation(version, suite)) for version, suite in wanted]
    for version, suite, state in states:
        if state.result is None and state.failures >= view.policy.evaluation_attempts:
            message = f"{suite} on {version.name} failed {state.failures} times: {state.message}"
            return view.end("Failed", "EvaluationFailed", message)
    if missing := [(version, suite) for version, suite, state in states if state.result is None]:
        return _wait_for_results(view, missing)
    results = [
        {suite: state.result for suite in view.policy.suites if (state := view.evaluation(version, suite)).result}
        for version in (view.candidate, view.stable)
    ]
    pairs = [pair for pair in wanted_pairs(view.snapshot) if pair.candidate.digest == view.candidate.digest]
    known = view.snapshot.differences
    if unread := dict.fromkeys(pair.suite for pair in pairs if pair not in known):
        answers = f"waits until the store tells the answers of both versions to {' and '.join(unread)}"
        return view.to("Evaluating", "", "", waiting=answers)
    differences = {(pair.suite, pair.metric): known[pair] for pair in pairs}
    gates = check_gates(view.policy.gates, results[0], results[1], differences)
    undecided = [gate.message for gate in gates if gate.passed is None]
    refused = [gate.message for gate in gates if gate.passed is False]
    if refused:
        return view.end("Rejected", "GateFailed", "; ".join(refused), gates=gates)
    if undecided:
        return view.end("Failed", "GateUndecided", "; ".join(undecided), gates=gates)
    if view.policy.approval == "Manual":
        return view.to("AwaitingApproval", "GatesPassed", f"{len(gates)} gates passed", gates=gates)
    return _start_canary(view, gates=gates)


def _wait_for_results(view: View, missing: Sequence[tuple[ModelVersion, str]]) -> PromotionStatus:
    """Machines get `evaluationTimeoutSeconds`; people get until the promotion's deadline."""
    states = {key: view.evaluation(*key) for key in missing if not is_reviewed(key[1])}
    queued = dict.fromkeys(state.message for state in states.values() if state.queued)
    limit, entered = view.policy.evaluation_timeout_seconds, view.entered("Evaluating")
    by_machine = [
        f"{suite} on {version.name}"
        for (version, suite), state in states.items()
        if not state.queued and view.seconds_since(max(entered, state.begun or entered)) > limit
    ]
    if by_machine:
        message = f"no result of {' and of '.join(by_machine)} within {limit:.0f} s"
        return view.end("Failed", "EvaluationTimeout", message)
    reviewed = dict.fromkeys(key for key in missing if is_reviewed(key[1]))
    by_people = [
        f"{suite} on {version.name}" + (f" ({said})" if (said := view.evaluation(version, suite).message) else "")
        for version, suite in reviewed
        if not is_by_judge(suite)
    ]
    by_judge = [f"{suite} on {version.name}" for version, suite in reviewed if is_by_judge(suite)]
    if not reviewed:
        return view.to("Evaluating", "", "", waiting="; ".join(queued))
    deadline = view.entered("Verifying") + timedelta(seconds=view.policy.deadline_seconds)
    until = f"until {deadline:%Y-%m-%d %H:%M} UTC at the latest"
    waits = list(queued)
    if by_people:
        remedy = "tunegate review create, serve, and result --save"
        waits.append(f"waits for people to judge {' and '.join(by_people)}, {until}: {remedy}")
    if by_judge:
        waits.append(f"waits for the judge model's {' and '.join(by_judge)}, {until}: tunegate review judge --save")
    return view.to("Evaluating", "", "", waiting="; ".join(waits))


def awaiting_approval(view: View) -> PromotionStatus:
    """Waiting for a person."""
    approval = view.promotion.approval
    if approval is None:
        return view.status
    if approval.verdict == "Rejected":
        return view.end("Rejected", "RejectedByPerson", approval.message or "no reason given", actor=approval.actor)
    return _start_canary(view, reason="Approved", message=f"by {approval.actor} {approval.message}".strip())


def _start_canary(
    view: View, reason: str = "GatesPassed", message: str = "all gates passed", **changes: object
) -> PromotionStatus:
    phase: Phase = "Progressing" if canary_steps(view.policy) else "Promoting"
    return view.to(phase, reason, message, **changes)


def progressing(view: View) -> PromotionStatus:
    """Also the handler of Paused: they differ only in what the promotion is waiting for."""
    if view.server.failed:
        return view.end("Failed", "CanaryNotReady", view.server.message)
    if view.server.queued:
        return _wait_for_room(view, "Progressing")
    steps = canary_steps(view.policy)
    if not steps:
        return view.to("Promoting", "StepsRemoved", "the policy has no canary steps any more")
    at = step_index(view.status, steps)
    step = steps[at]
    observed, comparison = view.observed(), view.compare()
    if observed != step.weight:
        if view.status.canary_started and comparison.outcome == "Worse":  # users have the share of the step before
            return view.roll_back(comparison)
        weight = view.status.weight if observed is None else observed
        return view.to("Progressing", "WeightSet", f"{step.weight} % requested", weight=weight, step_observed=None)
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
    if sentence := mismatch(view.snapshot.splits, step.weight):
        return view.end("Failed", "SampleRatioMismatch", sentence)
    if comparison.outcome == "Worse":
        return view.roll_back(comparison)
    is_last = at + 1 == len(steps)
    if waiting := _waiting(view, step, view.status.step_observed, comparison, is_last=is_last):
        return view.to("Paused", "Waiting", waiting, comparison=comparison, waiting=waiting)
    if is_last:
        return view.to("Promoting", "FeedbackNotWorse", comparison.message, comparison=comparison)
    message = f"{steps[at + 1].weight} % next"
    return view.to("Progressing", "StepDone", message, step=at + 1, step_observed=None, comparison=comparison)


def _wait_for_room(view: View, phase: Phase) -> PromotionStatus:
    """Its pods were taken, or never had a place: the step begins again when they have one, and nothing is held against
    the candidate that it did not answer."""
    observed, waiting = view.observed(), view.server.message
    weight = view.status.weight if observed is None else observed
    return view.to(phase, "Queued", waiting, weight=weight, waiting=waiting, step_observed=None)


def _waiting(view: View, step: CanaryStep, began: datetime, comparison: Comparison, *, is_last: bool) -> str:
    """What a step waits for, with the numbers; empty when it has all it needs."""
    reasons, most = [], view.policy.feedback.max_lean
    until = began + timedelta(seconds=step.pause_seconds)
    if view.now < until:
        reasons.append(f"it lasts until {until:%H:%M:%S} UTC")
    if comparison.candidate is None:  # nothing is known of the users, so nothing grows
        reasons.append(comparison.message)
    elif comparison.candidate.n < step.min_verdicts:
        reasons.append(f"{comparison.candidate.n} of {step.min_verdicts} verdicts")
    elif comparison.outcome == "Inconclusive" and comparison.evidence_worse > most:
        reasons.append(
            f"{comparison.candidate.n} of {step.min_verdicts} verdicts, which lean to worse: evidence "
            f"{comparison.evidence_worse:.2g}, and at most {most:.3g} lets it go on; {comparison.message}"
        )
    elif is_last and comparison.outcome != "NotWorse":
        reasons.append(comparison.message)
    if not reasons:
        return ""
    deadline = view.entered("Verifying") + timedelta(seconds=view.policy.deadline_seconds)
    return f"stays at {step.weight} %, until {deadline:%Y-%m-%d %H:%M} UTC at the latest: {'; '.join(reasons)}"


def promoting(view: View) -> PromotionStatus:
    """Waiting until the share that it bakes with, or all where the stable is away, is observed at the candidate."""
    if view.server.failed:
        return view.end("Failed", "CanaryNotReady", view.server.message)
    if view.server.queued:
        return _wait_for_room(view, "Promoting")
    observed, comparison = view.observed(), view.compare()
    if view.status.canary_started and comparison.outcome == "Worse":
        return view.roll_back(comparison)
    if observed not in (baking_weight(view.policy), 100):
        return view.to("Promoting", "", "", weight=view.status.weight if observed is None else observed)
    started = view.status.canary_started or view.now
    message = f"{observed} % of the traffic"
    changes = {"weight": observed, "canary_started": started, "step_observed": view.now}
    return view.to("Baking", "WeightObserved", message, **changes)


def baking(view: View) -> PromotionStatus:
    """Nearly all of the traffic goes to the candidate, and the comparison is still watched; then all of it does."""
    if view.server.failed:
        return view.end("RolledBack", "CandidateDown", view.server.message)
    if view.server.queued:
        return _wait_for_room(view, "Baking")
    comparison, observed = view.compare(), view.observed()
    if comparison.outcome == "Worse":
        return view.roll_back(comparison)
    share, seconds = baking_weight(view.policy), view.policy.baking_seconds
    # One that 0.1.0 began has the time of its last step here.
    since = max(view.status.step_observed or view.now, view.entered("Baking"))
    observed_since = since if observed is None or observed >= share else None
    # Without the counts nothing is known of the users, so nothing grows.
    blind = comparison.message if canary_steps(view.policy) and comparison.candidate is None else ""
    baked = view.status.baked
    if baked is None and observed_since and not blind and view.seconds_since(observed_since) >= seconds:
        baked = view.now
    if baked is None or observed != 100:
        weight, waiting = view.status.weight if observed is None else observed, blind and f"bakes on: {blind}"
        changes = {"baked": baked, "weight": weight, "step_observed": observed_since}
        return view.to("Baking", "", "", comparison=comparison, waiting=waiting, **changes)
    message = f"{comparison.message}; {seconds:.0f} s at {share} % without a sign of harm"
    return view.end("Promoted", "Baked", message, comparison=comparison, baked=baked, weight=100)


def rolling_back(view: View) -> PromotionStatus:
    """Needs nothing but the route: neither feedback, nor the store, nor the evaluator."""
    decision = view.status.decision
    assert decision is not None, "RollingBack is entered with its decision"
    assert decision.outcome != "Promoted"
    observed = view.observed()
    if observed is None or observed > 0:
        return view.to("RollingBack", "", "", weight=view.status.weight if observed is None else observed)
    stable = view.status.stable or view.stable
    return view.to(decision.outcome, "TrafficRestored", f"all of it goes to {stable.name}", weight=0)
