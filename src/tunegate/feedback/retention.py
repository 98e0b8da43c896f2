"""How long the logs are kept: whole days are deleted, answers and votes each after a time of their own."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Protocol

from tunegate.feedback import interactions, votes
from tunegate.feedback.segments import Documents, days_in

_DAY_SECONDS = 86400


class Store(Documents, Protocol):
    """What deleting needs of the store."""

    def ages(self, prefix: str) -> dict[str, float]: ...


def expired(store: Store, today: date, *, answers: int | None, votes_kept: int | None) -> Iterator[str]:
    """The keys of all that is older than so many days; None keeps it for ever.

    The day of the answer counts; of a vote of 0.1.0, which has no day in its key, the time since it was written.
    """
    if answers is not None:
        yield from _days_before(store, interactions.FOLDER, today - timedelta(days=answers))
    if votes_kept is not None:
        for version in store.folders(f"{votes.FOLDER}/"):
            yield from _days_before(store, f"{votes.FOLDER}/{version}", today - timedelta(days=votes_kept))
        old = store.ages(f"{votes.OLD_FOLDER}/")
        yield from (key for key, age in old.items() if age > votes_kept * _DAY_SECONDS)


def _days_before(store: Store, folder: str, first: date) -> Iterator[str]:
    for day in days_in(store, folder):
        if day < first:
            yield from (entry.key for entry in store.entries(f"{folder}/{day.isoformat()}/"))
