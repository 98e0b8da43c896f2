"""Which of the verdicts on a version count. Pure: the log reads them, whatever platform decides on them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from tunegate.api.feedback import StepTag, Tally, Verdict

VERDICTS_PER_USER = 3
"""How many verdicts of one user on the answers of one version on one day count, so that nobody decides alone."""


@dataclass(frozen=True)
class Vote:
    """One judged answer. `user` is the tag of one user on one day; None is not known again, so all of theirs count."""

    user: str | None
    answered: datetime
    received: datetime
    verdict: Verdict
    step: StepTag | None = None


def count_votes(votes: Iterable[Vote]) -> dict[StepTag | None, Tally]:
    """Count of each user the first few votes that were received; by the step in which their answers were given."""
    counted: Counter[str] = Counter()
    verdicts: defaultdict[StepTag | None, Counter[Verdict]] = defaultdict(Counter)
    for vote in sorted(votes, key=lambda vote: vote.received):
        if vote.user is not None:
            counted[vote.user] += 1
            if counted[vote.user] > VERDICTS_PER_USER:
                continue
        verdicts[vote.step][vote.verdict] += 1
    return {step: Tally(up=counts["up"], down=counts["down"]) for step, counts in verdicts.items()}
