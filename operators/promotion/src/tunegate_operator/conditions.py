"""Conditions: what is true of an object, why, and what to do about it; pure functions over what was decided.

They are observations for people and tools. Nothing decides by them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from tunegate.api.promotion import TERMINAL, Phase, Promotion, PromotionStatus
from tunegate.kube.kinds import Object

Status = Literal["True", "False", "Unknown"]


@dataclass(frozen=True)
class Condition:
    type: str
    status: Status
    reason: str
    message: str = ""


@dataclass(frozen=True)
class Problem:
    """Something that can't be read or done at the moment. `about` is the condition of the policy that it makes False.

    stops: whether promotions wait for it.
    """

    about: str
    reason: str
    message: str
    stops: bool = True


def written(conditions: Sequence[Condition], before: Object, now: datetime) -> list[Object]:
    """The list for a status: a transition time moves only when its condition's status does."""
    since = {
        (condition["type"], condition.get("status")): condition["lastTransitionTime"]
        for condition in before.get("status", {}).get("conditions", ())
        if "lastTransitionTime" in condition
    }
    generation = before.get("metadata", {}).get("generation", 0)
    return [
        {
            "type": condition.type,
            "status": condition.status,
            "reason": condition.reason,
            "message": condition.message[:32768],
            "observedGeneration": generation,
            "lastTransitionTime": since.get((condition.type, condition.status), f"{now:%Y-%m-%dT%H:%M:%SZ}"),
        }
        for condition in conditions
    ]


def of_promotion(promotion: Promotion, problems: Sequence[Problem], namespace: str, waits: str) -> list[Condition]:
    """Ready: the promotion has ended as it should, whatever the answer; Stalled: it waits for a person.

    waits: what one that has not started waits for.
    """
    status = promotion.status
    decision = status.decision
    ended = status.phase in TERMINAL
    last = status.history[-1] if status.history else None
    stopping = [] if ended else [problem for problem in problems if problem.stops]
    why, message = "Waiting", status.waiting or ": ".join(filter(None, ("it has not started yet", waits)))
    if last and not status.waiting:
        why, message = last.reason or last.phase, last.message
    stalled = ended and status.phase == "Failed"
    first = stopping[0] if stopping else None
    needed = first.message if first else message
    if stalled and decision:
        needed = f"{decision.message}; when the cause is gone, make another Promotion of the version"
    return [
        Condition("Ready", "True" if ended and not stalled else "False", why, message),
        Condition("Reconciling", "False" if ended or first else "True", first.reason if first else why, message),
        Condition(
            "Stalled",
            "True" if stalled or first else "False",
            first.reason if first else decision.reason if stalled and decision else why,
            needed,
        ),
        _passed("Verified", status, {"Verifying"}, ("VersionMissing", "DigestMismatch")),
        _passed("Evaluated", status, {"Verifying", "Evaluating"}, ("EvaluationFailed", "EvaluationTimeout")),
        _gates(status),
        _approved(promotion, namespace),
        _shifted(status),
        Condition(
            "Promoted",
            "True" if status.phase == "Succeeded" else "False" if ended else "Unknown",
            decision.reason if decision else why,
            decision.message if decision else message,
        ),
        _healthy(status),
    ]


def of_policy(problems: Sequence[Problem], checks: Sequence[str], busy: bool, phase: str) -> list[Condition]:
    """One condition for each of `checks`, which a problem makes False, and the summary.

    Ready is not said before the first server and its route are there.
    """
    found = {problem.about: problem for problem in reversed(problems)}
    stopping = next((problem for problem in problems if problem.stops), None)
    pending = phase == "Pending"
    told = next((problem for problem in problems if pending or problem.reason == phase), None)
    first = stopping or told
    reason, message = (first.reason, first.message) if first else (phase, "")
    return [
        Condition("Ready", "False" if stopping or pending else "True", reason, message),
        Condition("Reconciling", "True" if (busy or pending) and not stopping else "False", reason, message),
        Condition("Stalled", "True" if stopping else "False", reason, message),
        *(
            Condition(check, "False", found[check].reason, found[check].message)
            if check in found
            else Condition(check, "True", "Readable" if check.endswith("Readable") else "Works")
            for check in checks
        ),
    ]


def _passed(kind: str, status: PromotionStatus, before: set[Phase], failures: Sequence[str]) -> Condition:
    """Whether the promotion came past the phases in `before`, or ended there for one of the `failures`."""
    decision = status.decision
    if decision and decision.reason in failures:
        return Condition(kind, "False", decision.reason, decision.message)
    seen = {step.phase for step in status.history}
    # what a promotion was in, it left again once another phase followed that is not an ending
    is_past = bool(seen & {"AwaitingApproval", "Progressing", "Promoting"}) or bool(status.gates)
    if kind == "Verified":
        is_past = is_past or "Evaluating" in seen
    if is_past:
        return Condition(kind, "True", kind)
    if status.phase in before or not seen - {"Verifying", "Evaluating"}:
        return Condition(kind, "Unknown", "Waiting")
    return Condition(kind, "Unknown", "NotReached")


def _gates(status: PromotionStatus) -> Condition:
    refused = [gate.message for gate in status.gates if gate.passed is False]
    undecided = [gate.message for gate in status.gates if gate.passed is None]
    if refused:
        return Condition("GatePassed", "False", "GateFailed", "; ".join(refused))
    if undecided:
        again = "a version is evaluated again when you delete its ModelVersion"
        return Condition("GatePassed", "Unknown", "GateUndecided", "; ".join((*undecided, again)))
    if any(step.phase in ("AwaitingApproval", "Progressing", "Promoting") for step in status.history):
        return Condition("GatePassed", "True", "GatesPassed", "; ".join(gate.message for gate in status.gates))
    return Condition("GatePassed", "Unknown", "NotReached" if status.decision else "Waiting")


def _approved(promotion: Promotion, namespace: str) -> Condition:
    status, approval = promotion.status, promotion.approval
    if approval:
        verdict: Status = "True" if approval.verdict == "Approved" else "False"
        return Condition("Approved", verdict, f"{approval.verdict}ByPerson", f"{approval.actor}: {approval.message}")
    if status.phase == "AwaitingApproval":
        remedy = f"say: tunegate promotions approve {promotion.name} -n {namespace} (or reject)"
        return Condition("Approved", "Unknown", "AwaitingApproval", remedy)
    if any(step.phase in ("Progressing", "Promoting") for step in status.history):
        return Condition("Approved", "True", "Automatic")
    return Condition("Approved", "Unknown", "NotReached" if status.decision else "Waiting")


def _shifted(status: PromotionStatus) -> Condition:
    if status.weight > 0:
        return Condition("TrafficShifted", "True", "WeightObserved", f"{status.weight} % of the traffic")
    restored = bool(status.canary_started and status.decision)
    return Condition("TrafficShifted", "False", "TrafficRestored" if restored else "NotShown")


def _healthy(status: PromotionStatus) -> Condition:
    decision, comparison = status.decision, status.comparison
    if decision and decision.reason in ("FeedbackWorse", "CanaryNotReady", "CandidateDown"):
        return Condition("Healthy", "False", decision.reason, decision.message)
    if comparison is None:
        return Condition("Healthy", "Unknown", "NotShown")
    status_of: dict[str, Status] = {"NotWorse": "True", "Worse": "False", "Inconclusive": "Unknown"}
    return Condition("Healthy", status_of[comparison.outcome], comparison.outcome, comparison.message)
