"""Who counts the verdicts: Prometheus says when a decision is near, and what is decided comes from the log of votes.

The log is in the store, counted by the function that the local platform uses. While it can't be read nothing is
decided but one thing: a candidate that Prometheus counts as worse is taken back, as a rollback can't wait for a store.
While Prometheus is away, or has lost the beginning of the canary, the log alone is asked, slowly.
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
QUICK_SECONDS, SLOW_SECONDS = 5.0, 30.0
"""How old a count of the log may be before it is read again: while a decision is near, and while nobody but the log can
say whether one is. Reading it costs the store a listing, so it is not read for every look at every canary."""


def by_the_log(
    seen: Snapshot, quick: Counts | Problem, read_log: Callable[[float], Logged], now: datetime
) -> Counts | Problem:
    """The counts to decide on. `quick` are Prometheus's, or why it has none; `read_log` gives what the log says of the
    same versions, if possible no older than so many seconds, why it can't be read, or None while that is not known yet.
    """
    if isinstance(quick, Problem):
        return _without_prometheus(quick, _read_slowly(seen, read_log, now))
    told = with_counts(seen, quick)
    if is_near(told, now):
        logged = read_log(QUICK_SECONDS)
    elif quick.is_whole:
        return quick
    else:
        logged = _read_slowly(seen, read_log, now)
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


def _read_slowly(seen: Snapshot, read_log: Callable[[float], Logged], now: datetime) -> Logged:
    """What the log says; it is read as often as ever once it says itself that a decision is near."""
    logged = read_log(SLOW_SECONDS)
    if isinstance(logged, Mapping) and is_near(replace(seen, tallies=logged), now):
        return read_log(QUICK_SECONDS)
    return logged


def _without_prometheus(away: Problem, logged: Logged) -> Counts | Problem:
    """A promotion goes on by the log alone; only where that can't be read either does it wait."""
    if isinstance(logged, Problem):
        message = (
            f"{away.message}; the log of votes can't be read either: {logged.message.rstrip('.')}; until one of them "
            "can, nothing grows, and nobody is promoted or taken back for what users say"
        )
        return replace(away, message=message, stops=True)
    message = (
        f"{away.message}; until then verdicts are counted from the log of votes alone, every {SLOW_SECONDS:.0f} s "
        "while no decision is near, and the split is not checked"
    )
    return Counts(logged, problem=replace(away, message=message, stops=False))
