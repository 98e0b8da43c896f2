"""Events: what happens to promotions and policies, once, for people."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tunegate.kube.kinds import Object
from tunegate.promotion.snapshot import Plan
from tunegate_operator.conditions import Problem
from tunegate_operator.gather import Gathered
from tunegate_operator.read import is_true


@dataclass(frozen=True)
class Note:
    """An Event about an object, for people."""

    about: Object
    reason: str
    message: str
    warning: bool = False


def transition_notes(gathered: Gathered, plan: Plan) -> Iterable[Note]:
    """One Event for each transition of a promotion."""
    bad = ("Failed", "RolledBack", "Rejected")
    for event in plan.events:
        status = plan.statuses[event.promotion]
        decided = status.decision is not None and status.decision.outcome in bad
        yield Note(
            gathered.objects.promotions[event.promotion], event.reason or status.phase, event.message, warning=decided
        )


def rollout_notes(gathered: Gathered, is_done: bool) -> Iterable[Note]:
    """One Event when a rollout that a person asked for has been written to every server."""
    message = "servers are as the policy says now; KServe replaces the pods of those that were not, one by one"
    return (Note(gathered.obj, "RolledOut", message),) if is_done else ()


def problem_notes(obj: Object, problems: Iterable[Problem]) -> tuple[Note, ...]:
    """One Event when a problem begins to stop promotions; it is in the conditions for as long as it lasts."""
    was_stalled = is_true(obj, "Stalled")
    said = {
        (condition.get("type"), condition.get("reason"))
        for condition in obj.get("status", {}).get("conditions", ())
        if was_stalled  # else the problem was there, and nothing waited for it
    }
    return tuple(
        Note(obj, problem.reason, problem.message, warning=True)
        for problem in problems
        if problem.stops and (problem.about, problem.reason) not in said and ("Stalled", problem.reason) not in said
    )
