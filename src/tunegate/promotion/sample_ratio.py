"""Whether the questions of a step were split as was asked.

Where they were not, verdicts don't compare two versions: a split that follows who asks, or what, gives each version
another kind of users.

The test may be looked at as often as liked, as the comparison may: the evidence is an e-value, the likelihood of the
counts at any share of the traffic (all alike before) over that at the share that was asked for. The chance that it ever
reaches ENOUGH where the split is right is at most 1 / ENOUGH.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

ENOUGH = 10_000.0
LEAST = 100
"""Questions in a step before anything is said of them."""
SLACK = 64
"""Questions more or less than the share that say nothing: each thread of a gateway that goes in turns has one."""


def mismatch(splits: Sequence[tuple[int, int]], weight: int) -> str:
    """Why the split is not the one that was asked for, as a sentence; empty where it may be, or where nobody knows.

    `splits` are the questions that the candidate and the stable were asked in the step, counted in one or more ways:
    all of them must say so, and in the same direction, as the counts of two servers that are read one after the other
    never are of the same moment. `weight` is the candidate's share in percent, 1 to 99.
    """
    if not splits or any(sum(split) < LEAST or log_evidence(*split, weight) < math.log(ENOUGH) for split in splits):
        return ""
    more = [candidate - weight * (candidate + stable) / 100 for candidate, stable in splits]
    if min(more) <= SLACK and max(more) >= -SLACK:  # within it, or in different directions
        return ""
    candidate, stable = splits[-1]
    n = candidate + stable
    return (
        f"{candidate} of {n} questions ({100 * candidate / n:.2g} %) went to the candidate, where {weight} % were asked"
        f" for; chance does that in less than one of {ENOUGH:,.0f} canaries, so the verdicts are not compared"
    )


def log_evidence(candidate: int, stable: int, weight: int) -> float:
    """Natural logarithm of the evidence that the split is another one than `weight` percent."""
    at_any_share = math.lgamma(candidate + 1) + math.lgamma(stable + 1) - math.lgamma(candidate + stable + 2)
    return at_any_share - candidate * math.log(weight / 100) - stable * math.log1p(-weight / 100)
