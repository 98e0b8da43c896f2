"""Which version serves, which promotion users see, and whose verdicts are counted since when.

Both platforms ask here, so that the same verdicts end in the same decision wherever they were counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from tunegate.api.promotion import Phase, Promotion
from tunegate.api.versions import ModelVersion
from tunegate.promotion.snapshot import Snapshot

SHOWN: frozenset[Phase] = frozenset({"Progressing", "Paused", "Promoting", "Baking", "RollingBack"})
"""Phases in which users may get answers of the candidate."""


def stable_version(snapshot: Snapshot) -> ModelVersion:
    """The version that serves when no promotion is under way: the last one promoted, or the initial one."""
    promoted = [
        (promotion.status.decision.time, promotion.candidate)
        for promotion in snapshot.promotions
        if promotion.status.phase == "Succeeded" and promotion.status.decision
    ]
    return max(promoted, key=lambda pair: pair[0])[1] if promoted else snapshot.initial


def shown(promotions: Iterable[Promotion]) -> Promotion | None:
    """The promotion whose candidate users may see; there is one at most."""
    return next((promotion for promotion in promotions if promotion.status.phase in SHOWN), None)


def name_in_store(snapshot: Snapshot, promotion: Promotion) -> str:
    """The promotion's name among all that share a store: policies of several namespaces may have one name."""
    return f"{snapshot.namespace}/{promotion.name}" if snapshot.namespace else promotion.name


class Counted(NamedTuple):
    """Whose verdicts are counted: those on answers of the candidate and of its concurrent stable, in the steps of this
    promotion. Answers that were given in no step count from the start of the canary.

    promotion: its name among all that share the store. step: the index of the step whose split is checked. step_since:
    since when its weight is observed; None: it is not. per_address: of the policy's feedback.
    """

    promotion: str
    candidate: str
    stable: str
    since: datetime
    step: int = 0
    step_since: datetime | None = None
    per_address: int | None = None

    @property
    def digests(self) -> tuple[str, str]:
        return self.candidate, self.stable


def counted(snapshot: Snapshot) -> Counted | None:
    """What is to be counted now.

    None while no verdict can change anything: no canary runs, its end is decided, or a person has taken the traffic.
    """
    promotion = shown(snapshot.promotions)
    if promotion is None or promotion.status.phase == "RollingBack" or promotion.abort or snapshot.modified:
        return None
    if promotion.status.canary_started is None:
        return None
    stable = promotion.status.stable or stable_version(snapshot)
    status = promotion.status
    return Counted(
        promotion=name_in_store(snapshot, promotion),
        candidate=promotion.candidate.digest,
        stable=stable.digest,
        since=promotion.status.canary_started,
        step=status.step,
        step_since=status.step_observed if status.phase == "Paused" else None,
        per_address=snapshot.policy.feedback.max_per_address,
    )
