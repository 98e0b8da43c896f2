"""What a served model needs next, from what is seen now.

`decide` is called again and again with a fresh snapshot; nothing is remembered in between. Each promotion takes at
most one step along its phases per call. It may be called late, twice, or by another process: the answer depends on
the snapshot alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

import msgspec

from tunegate.api.digest import short
from tunegate.api.promotion import TERMINAL, Phase, Promotion, PromotionStatus, RunChoice
from tunegate.promotion import phases
from tunegate.promotion.counting import SHOWN, stable_version
from tunegate.promotion.desired import desired_evaluations, desired_servers, desired_step, desired_weights
from tunegate.promotion.phases import View
from tunegate.promotion.runs import run_choices, training_stops
from tunegate.promotion.snapshot import Event, Plan, Snapshot


def decide(snapshot: Snapshot, now: datetime) -> Plan:
    """Say what should be true next. Pure: same snapshot and time, same plan."""
    stable = stable_version(snapshot)
    promotions = tuple(
        promotion
        if promotion.status.phase in TERMINAL
        else msgspec.structs.replace(promotion, status=_next_status(View(snapshot, promotion, stable, now)))
        for promotion in snapshot.promotions
    )
    changed = [(old, new) for old, new in zip(snapshot.promotions, promotions, strict=True) if old != new]
    after, choices = replace(snapshot, promotions=promotions), run_choices(snapshot)
    weights = desired_weights(after)
    return Plan(
        create=() if snapshot.policy.suspend or snapshot.modified else _new_promotions(snapshot, choices, now),
        statuses={new.name: new.status for _, new in changed},
        evaluations=desired_evaluations(after),
        servers=desired_servers(after),
        weights=weights,
        step=desired_step(after, weights),
        choices=choices,
        stops=training_stops(after),
        events=tuple(
            Event(new.name, new.status.history[-1].reason, new.status.history[-1].message)
            for old, new in changed
            if new.status.history[-1:] != old.status.history[-1:]
        ),
    )


_PHASES: dict[Phase, Callable[[View], PromotionStatus]] = {
    "Pending": phases.pending,
    "Verifying": phases.verifying,
    "Evaluating": phases.evaluating,
    "AwaitingApproval": phases.awaiting_approval,
    "Progressing": phases.progressing,
    "Paused": phases.progressing,
    "Promoting": phases.promoting,
    "Baking": phases.baking,
    "RollingBack": phases.rolling_back,
}


def _next_status(view: View) -> PromotionStatus:
    phase = view.status.phase
    if view.snapshot.modified and phase in SHOWN:
        return view.give_up("TargetModified", view.snapshot.modified)
    if view.candidate.digest == view.stable.digest:
        return view.stop_as_stable()
    if phase != "RollingBack":
        if abort := view.promotion.abort:
            return view.end("Aborted", "Aborted", abort.message or "no reason given", actor=abort.actor)
        if phase not in SHOWN and (newer := view.newer()):
            return view.end("Superseded", "NewerVersion", f"{newer.candidate.name} is newer")
        if phase in SHOWN and (reason := view.snapshot.struck.get(view.candidate.digest)):
            return view.end("Failed", "WrongWeights", reason)
        limit = view.policy.deadline_seconds
        if phase not in ("Pending", "Baking") and view.seconds_since(view.entered("Verifying")) > limit:
            known = view.status.comparison.message if view.status.comparison else view.status.waiting
            waited = f"it waited as {phase}" + (f" ({known})" if known else "")
            message = f"not decided within {limit:.0f} s, {waited}; the stable stays"
            return view.end("Failed", "DeadlineExceeded", message)
    return _PHASES[phase](view)


def _new_promotions(snapshot: Snapshot, choices: Sequence[RunChoice], now: datetime) -> tuple[Promotion, ...]:
    """One attempt for each version that is newer than all tried ones; a digest is never tried twice."""
    candidates = snapshot.versions or ()
    if snapshot.policy.selection.type == "BestOf":
        chosen = {choice.digest for choice in choices}
        candidates = tuple(version for version in candidates if version.digest in chosen)
    elif snapshot.policy.candidates == "FinishedRuns":
        last = {version.run: version for version in candidates}
        candidates = tuple(version for version in last.values() if version.run in snapshot.finished_runs)
    tried = {promotion.candidate.digest for promotion in snapshot.promotions} | {snapshot.initial.digest}
    newest = max((promotion.candidate.created for promotion in snapshot.promotions), default=None)
    fresh = [
        version
        for version in candidates
        if version.digest not in tried and (newest is None or version.created > newest)
    ]
    return tuple(
        Promotion(name=f"{version.model}-{version.run}-{short(version.digest)}", created=now, candidate=version)
        for version in fresh
    )
