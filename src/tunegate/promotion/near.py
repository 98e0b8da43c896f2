"""Is a decision near? Then the verdicts are counted from the log, which is exact; until then quick counts will do.

Quick counts are those of the servers' metrics: they may lag, miss the last verdicts of a server that is gone, and count
one twice that was sent to two servers. No decision is made from them, but a rollback when there is nothing better.
"""

from __future__ import annotations

from datetime import datetime

from tunegate.promotion.counting import shown, stable_version
from tunegate.promotion.desired import canary_steps, step_index
from tunegate.promotion.phases import View
from tunegate.promotion.snapshot import Snapshot

EVIDENCE_FACTOR = 4.0
"""A conclusion is near from a quarter of the evidence on that it takes."""
VERDICTS_SHARE = 0.8
"""The end of a step is near from this part of its `minVerdicts` on."""


def is_near(snapshot: Snapshot, now: datetime) -> bool:
    """Whether the verdicts may soon change anything: by a conclusion, by the end of a step, or as it is baking."""
    view = _shown(snapshot, now)
    if view is None:
        return False
    steps = canary_steps(view.policy)
    if view.status.phase not in ("Progressing", "Paused") or not steps:
        return True
    compared = view.compare()
    if compared.candidate is None:
        return False
    strongest = max(compared.evidence_worse, compared.evidence_not_worse)
    enough = VERDICTS_SHARE * steps[step_index(view.status, steps)].min_verdicts
    return strongest * EVIDENCE_FACTOR >= compared.threshold or compared.candidate.n >= enough


def says_worse(snapshot: Snapshot, now: datetime) -> bool:
    """Whether the verdicts of this snapshot end in a rollback."""
    view = _shown(snapshot, now)
    return view is not None and view.compare().outcome == "Worse"


def _shown(snapshot: Snapshot, now: datetime) -> View | None:
    promotion = shown(snapshot.promotions)
    return View(snapshot, promotion, stable_version(snapshot), now) if promotion else None
