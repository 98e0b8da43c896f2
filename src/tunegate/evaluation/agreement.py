"""How far people agree beyond chance, from what each of them said of the same answers. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import permutations
from typing import Literal

Level = Literal["nominal", "ordinal", "interval"]


def kappa(first: Sequence[str | float], second: Sequence[str | float]) -> float | None:
    """Cohen's kappa of two reviewers who judged the same answers in the same order.

    1 is agreement throughout, 0 what chance would give. None without answers, and where both said the same of all:
    nothing then tells agreement from habit. Source: Cohen, A coefficient of agreement for nominal scales (1960).
    """
    n = len(first)
    if not n:
        return None
    observed = sum(one == other for one, other in zip(first, second, strict=True)) / n
    shares, others = Counter(first), Counter(second)
    expected = sum(shares[value] * others[value] for value in shares) / n**2
    return None if expected == 1 else (observed - expected) / (1 - expected)


def alpha(units: Sequence[Sequence[float]], level: Level) -> float | None:
    """Krippendorff's alpha: `units` holds, for each answer, the values that it was given, however many.

    Answers with one value count for nothing. None where fewer than two values can be compared, or all are the same.
    Source: Krippendorff, Computing Krippendorff's alpha-reliability (2011).
    """
    coincidences: Counter[tuple[float, float]] = Counter()
    for unit in units:
        for pair in permutations(unit, 2):
            coincidences[pair] += 1 / (len(unit) - 1)  # type: ignore[assignment] # a weight
    totals: Counter[float] = Counter()
    for (value, _), weight in coincidences.items():
        totals[value] += weight
    n = sum(totals.values())

    def distance(one: float, other: float) -> float:
        """Squared; of ranks, by how many values lie between them."""
        if level == "nominal":
            return float(one != other)
        if level == "interval":
            return (one - other) ** 2
        low, high = min(one, other), max(one, other)
        between = sum(weight for value, weight in totals.items() if low <= value <= high)
        return float(between - (totals[low] + totals[high]) / 2) ** 2

    observed = sum(weight * distance(*pair) for pair, weight in coincidences.items())
    expected = sum(totals[one] * totals[other] * distance(one, other) for one in totals for other in totals)
    return 1 - (n - 1) * observed / expected if expected else None
