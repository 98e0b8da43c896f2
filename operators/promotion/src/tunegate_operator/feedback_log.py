"""Who counts the verdicts: Prometheus says when a decision is near, and what is decided comes from the log of votes.

The log is in the store, counted by the function that the local platform uses. While it can't be read nothing is
decided but one thing: a candidate that Prometheus counts as worse is taken back, as a rollback can't wait for a store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime

from tunegate.api.feedback import Verdicts
from tunegate.promotion.near import is_near, says_worse
from tunegate.promotion.snapshot import Snapshot
from tunegate_operator.conditions import Problem
from tunegate_operator.feedback_counts import Counts, with_counts

Logged = Mapping[str, Verdicts] | Problem | None


def by_the_log(seen: Snapshot, quick: Counts, read_log: Callable[[], Logged], now: datetime) -> Counts:
    """The counts to decide on. `quick` are Prometheus's; `read_log` gives what the log says of the same versions, why
    it can't be read, or None while that is not known yet.

    The log is also asked where Prometheus has lost the beginning of the canary.
    """
    told = with_counts(seen, quick)
    if quick.is_whole and not is_near(told, now):
        return quick
    logged = read_log()
    if isinstance(logged, Mapping):
        return replace(quick, tallies=logged)
    if logged is None:
        return replace(quick, tallies=None)
    kept = quick.tallies if says_worse(told, now) else None
    message = (
        f"a decision is near, and the log of votes can't be read: {logged.message.rstrip('.')}; until it can, nothing "
        "grows and nobody is promoted, and a candidate that Prometheus counts as worse is taken back"
    )
    return replace(quick, tallies=kept, problem=Problem("FeedbackReadable", "LogUnreadable", message))
