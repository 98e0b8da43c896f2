"""Which of the verdicts on a version count. Pure: the log reads them, whatever platform decides on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from tunegate.api.feedback import Tally, Verdict

VERDICTS_PER_USER = 3
"""How many verdicts of one user on the answers of one version on one day count, so that nobody decides alone."""


@dataclass(frozen=True)
class Vote:
    """One judged answer. `user` is the tag of one user on one day; None is not known again, so all of theirs count."""

    user: str | None
    answered: datetime
    received: datetime
    verdict: Verdict


def count_votes(votes: Iterable[Vote]) -> Tally:
    """Count of each user the first few votes that were received."""
    counted: Counter[str] = Counter()
    verdicts: Counter[Verdict] = Counter()
    for vote in sorted(votes, key=lambda vote: vote.received):
        if vote.user is not None:
            counted[vote.user] += 1
            if counted[vote.user] > VERDICTS_PER_USER:
                continue
        verdicts[vote.verdict] += 1
    return Tally(up=verdicts["up"], down=verdicts["down"])
