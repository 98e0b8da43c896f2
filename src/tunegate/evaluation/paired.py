"""Two versions on the same questions: which answers changed, and whether that may be chance. Pure functions.

Questions differ far more than versions do, so versions are compared question by question: at 150 of them a difference
of 10 points shows, where two separate shares would need 195 for each version.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tunegate.api.codec import Resource
from tunegate.api.evaluation import Evaluation, Record
from tunegate.statistics.clusters import Z95, clusters_of

_Z_POWER = 0.8416212335729143  # of 80 %


class Flip(Resource, frozen=True, kw_only=True):
    """A question that one version got right and the other wrong."""

    id: str
    prompt: str
    expected: str
    before: str
    after: str
    is_gain: bool


class Paired(Resource, frozen=True, kw_only=True):
    """What changed from one version to another in one suite.

    n: questions that both were asked. difference: of the shares that are right, in -1..1.
    p: chance of as many changes in one direction where versions are alike (McNemar, exact, two-sided); a cluster counts
    once, by the side that most of its changes are on.
    more: about how many more questions would show a difference such as this with a power of 80 %; None where there is
    none, or the questions asked show it.
    """

    suite: str
    n: int
    gained: int
    lost: int
    difference: float
    p: float
    more: int | None
    flips: tuple[Flip, ...]


def compare_items(before: Evaluation, after: Evaluation) -> Paired | None:
    """`after` against `before`, of which both were asked the same suite; None where no question was scored for both.

    A question is right where its first score is 1: `accuracy` or `score`.
    """
    first = {record.id: record for record in before.records if _is_scored(record)}
    pairs = [(first[record.id], record) for record in after.records if _is_scored(record) and record.id in first]
    if not pairs:
        return None
    flips = tuple(
        Flip(
            id=new.id,
            prompt=new.prompt,
            expected=new.expected,
            before=old.output or old.answer,
            after=new.output or new.answer,
            is_gain=_is_right(new),
        )
        for old, new in pairs
        if _is_right(old) != _is_right(new)
    )
    gained = sum(flip.is_gain for flip in flips)
    lost, n = len(flips) - gained, len(pairs)
    p = mcnemar(*_sides(pairs))
    return Paired(
        suite=after.suite,
        n=n,
        gained=gained,
        lost=lost,
        difference=(gained - lost) / n,
        p=p,
        more=None if p < 0.05 else items_needed(gained, lost, n),
        flips=tuple(sorted(flips, key=lambda flip: flip.is_gain)),
    )


def _sides(pairs: Sequence[tuple[Record, Record]]) -> tuple[int, int]:
    """How many clusters got better, and worse; a question without one is a cluster of its own."""
    changes = [_is_right(new) - _is_right(old) for old, new in pairs]
    groups = clusters_of([old.cluster for old, _ in pairs]).values()
    sums = [sum(changes[place] for place in places) for places in groups]
    return sum(change > 0 for change in sums), sum(change < 0 for change in sums)


def mcnemar(gained: int, lost: int) -> float:
    """The exact two-sided p: the chance that `gained + lost` fair coins fall at least as unevenly."""
    n, least = gained + lost, min(gained, lost)
    ways: int = sum(math.comb(n, k) for k in range(least + 1))
    return min(1.0, ways / 2 ** (n - 1)) if n else 1.0  # of integers of any size


def items_needed(gained: int, lost: int, n: int) -> int | None:
    """How many more questions than `n`; None where nothing leans to either side.

    Source: Connor, Sample size for testing differences in proportions for the paired-sample design (1987).
    """
    difference, discordant = abs(gained - lost) / n, (gained + lost) / n
    if not difference:
        return None
    root = Z95 * math.sqrt(discordant) + _Z_POWER * math.sqrt(max(discordant - difference**2, 0.0))
    return max(1, math.ceil((root / difference) ** 2) - n)


def _is_scored(record: Record) -> bool:
    return not {"accuracy", "score"}.isdisjoint(record.scores)


def _is_right(record: Record) -> bool:
    scores: Mapping[str, float] = record.scores
    return scores.get("accuracy", scores.get("score")) == 1
