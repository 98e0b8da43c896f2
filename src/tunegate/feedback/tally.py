"""Which of the verdicts on a version count. Pure: whoever decides on them, on whatever platform, asks here."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import Any

import msgspec

from tunegate.api.feedback import FeedbackRecord, StepTag, Tally, Verdict

VERDICTS_PER_USER = 3
"""How many verdicts of one user on the answers of one version on one day, within one promotion, count: so that nobody
decides alone, and those on the candidate and on the stable beside it are as many."""

AMEND_SECONDS = 600.0
"""How long after its first vote a user may change what was said of an answer."""

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


BY_ADDRESS = "@"
"""What the tag of a user whom a request did not name begins with: it stands for the address that it came from."""


class Caps:
    """Counts the verdicts of each user; `most` users are remembered, those that voted last.

    per_address: how many count of the unnamed users at one address; None: all.
    """

    def __init__(self, most: int | None = None, per_address: int | None = None) -> None:
        self._counts: dict[tuple[str, str | None], int] = {}
        self._most, self._per_address = most, per_address

    def admit(self, user: str | None, step: StepTag | None) -> bool:
        """Whether one more verdict of `user` on an answer of this step counts."""
        is_address = user is not None and user.startswith(BY_ADDRESS)
        most = self._per_address if is_address else VERDICTS_PER_USER
        if user is None or most is None:
            return True
        who = (user, step and step[:_PROMOTION])
        self._counts[who] = count = self._counts.pop(who, 0) + 1
        if self._most and len(self._counts) > self._most:
            del self._counts[next(iter(self._counts))]
        return count <= most


def counting(votes: Iterable[Vote], per_address: int | None = None) -> Iterator[Vote]:
    """The votes that count, in the order in which the first on their answer was received: of each answer the last one
    that came in time to amend the first, and of each user the first few."""
    firsts, amended, caps = dict[int, Vote](), dict[int, Vote](), Caps(per_address=per_address)
    for vote in sorted(votes, key=attrgetter("received")):
        first = firsts.setdefault(vote.id, vote)
        if first is not vote and vote.received - first.received <= AMEND_SECONDS:
            amended[vote.id] = vote
    for first in firsts.values():
        if caps.admit(first.user, first.step):
            yield amended.get(first.id, first)


def joined(records: Iterable[FeedbackRecord]) -> dict[str, FeedbackRecord]:
    """What was said of each answer in the end, by response id, in the order of the first vote; `received` is its time.

    Another verdict in time stands for all that was said before, and one that comes later for nothing. The same verdict
    again adds what it says besides, whenever it comes.
    """
    found: dict[str, FeedbackRecord] = {}
    for record in sorted(records, key=attrgetter("received")):
        key, said = record.feedback.response_id, record.feedback
        first = found.setdefault(key, record)
        if said.verdict == first.feedback.verdict:
            said = msgspec.structs.replace(first.feedback, **additions(record))
        elif (record.received - first.received).total_seconds() > AMEND_SECONDS:
            continue
        found[key] = msgspec.structs.replace(first, feedback=said)
    return found


def additions(record: FeedbackRecord) -> dict[str, Any]:
    """What a vote says besides its verdict."""
    said = {name: getattr(record.feedback, name) for name in ("rating", "tags", "comment", "correction")}
    return {name: value for name, value in said.items() if value}


def count_votes(votes: Iterable[Vote]) -> dict[StepTag | None, Tally]:
    """How many verdicts of each kind count, by the step in which their answers were given."""
    verdicts: defaultdict[StepTag | None, Counter[Verdict]] = defaultdict(Counter)
    for vote in counting(votes):
        verdicts[vote.step][vote.verdict] += 1
    return {step: Tally(up=counts["up"], down=counts["down"]) for step, counts in verdicts.items()}
