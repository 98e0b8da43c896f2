"""From item scores to metrics with standard errors: pure numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

from tunegate.api.evaluation import Metric

Z95 = 1.959963984540054


def share(name: str, passed: Sequence[bool]) -> Metric:
    """The share of items that passed."""
    n = len(passed)
    return Metric(name=name, value=fmean(passed) if n else None, stderr=share_stderr(sum(passed), n), n=n)


def share_stderr(passed: int, n: int) -> float | None:
    """The standard error whose 1.96-fold is half the Wilson 95 % interval.

    Unlike sqrt(p(1-p)/n) it is not 0 where all or no items passed: ten right answers of ten are no proof of 100 %.
    """
    if not n:
        return None
    p = passed / n
    return math.sqrt(p * (1 - p) / n + Z95**2 / (4 * n**2)) / (1 + Z95**2 / n)


def mean(name: str, values: Sequence[float]) -> Metric:
    """The mean of `values` with the standard error of a mean, which takes at least two of them."""
    n = len(values)
    stderr = stdev(values) / math.sqrt(n) if n > 1 else None
    return Metric(name=name, value=fmean(values) if n else None, stderr=stderr, n=n)


def macro(name: str, groups: Mapping[str, Sequence[bool]]) -> Metric:
    """The mean of the groups' shares, each group counting the same, with the error of a sum of independent shares.

    No group may be empty: it has no share.
    """
    assert groups
    assert all(groups.values())
    shares = [share(name, passed) for passed in groups.values()]
    variance = sum((group.stderr or 0.0) ** 2 for group in shares) / len(shares) ** 2
    return Metric(
        name=name,
        value=fmean(group.value or 0.0 for group in shares),
        stderr=math.sqrt(variance),
        n=sum(group.n for group in shares),
    )
