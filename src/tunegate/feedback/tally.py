"""Which of the verdicts on a version count. Pure: whoever decides on them, on whatever platform, asks here."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from operator import attrgetter

import msgspec

from tunegate.api.feedback import StepTag, Tally, Verdict

VERDICTS_PER_USER = 3
"""How many verdicts of one user on the answers of one version on one day, within one promotion, count: so that nobody
decides alone, and those on the candidate and on the stable beside it are as many."""


_PROMOTION = 10  # characters of a step's tag that are the promotion's


class Vote(msgspec.Struct, frozen=True, gc=False):
    """One judged answer; small, as a million of them are counted.

    id: a hash that tells the answer from others. user: the tag of one user on one day; None is not known again, so all
    of theirs count. answered, received: seconds since 1970.
    """

    id: int
    user: str | None
    answered: float
    received: float
    verdict: Verdict
    step: StepTag | None = None


class Caps:
    """Counts the verdicts of each user; `most` users are remembered, those that voted last."""

    def __init__(self, most: int | None = None) -> None:
        self._counts: dict[tuple[str, str | None], int] = {}
        self._most = most

    def admit(self, user: str | None, step: StepTag | None) -> bool:
        """Whether one more verdict of `user` on an answer of this step counts."""
        if user is None:
            return True
        who = (user, step and step[:_PROMOTION])
        self._counts[who] = count = self._counts.pop(who, 0) + 1
        if self._most and len(self._counts) > self._most:
            del self._counts[next(iter(self._counts))]
        return count <= VERDICTS_PER_USER


def counting(votes: Iterable[Vote]) -> Iterator[Vote]:
    """The votes that count, in the order in which they were received: of each answer the first one, and of each user
    the first few."""
    judged, caps = set[int](), Caps()
    for vote in sorted(votes, key=attrgetter("received")):
        if vote.id not in judged:
            judged.add(vote.id)
            if caps.admit(vote.user, vote.step):
                yield vote


def count_votes(votes: Iterable[Vote]) -> dict[StepTag | None, Tally]:
    """How many verdicts of each kind count, by the step in which their answers were given."""
    verdicts: defaultdict[StepTag | None, Counter[Verdict]] = defaultdict(Counter)
    for vote in counting(votes):
        verdicts[vote.step][vote.verdict] += 1
    return {step: Tally(up=counts["up"], down=counts["down"]) for step, counts in verdicts.items()}
