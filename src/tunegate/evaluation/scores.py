"""From item scores to metrics with standard errors and 95 % intervals: pure numbers.

The usual interval of a mean is too narrow for the 50 to 150 questions of a suite: at 150 and 95 % it holds the truth in
93.7 % of cases, at 50 in 92. Shares get Wilson's, other means the bootstrap's.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

from tunegate.api.evaluation import Metric

Z95 = 1.959963984540054
_RESAMPLES = 1000
_MANY = 1000  # from here on the usual interval of a mean holds what it says


def share(name: str, passed: Sequence[bool]) -> Metric:
    """The share of items that passed."""
    n = len(passed)
    if not n:
        return Metric(name=name, n=0)
    low, high = wilson(sum(passed), n)
    return Metric(name=name, value=fmean(passed), stderr=share_stderr(sum(passed), n), low=low, high=high, n=n)


def wilson(passed: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, within 0..1; `n` is at least 1."""
    middle = (passed / n + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 * (share_stderr(passed, n) or 0.0)
    return max(0.0, middle - half), min(1.0, middle + half)


def share_stderr(passed: int, n: int) -> float | None:
    """The standard error whose 1.96-fold is half the Wilson 95 % interval.

    Unlike sqrt(p(1-p)/n) it is not 0 where all or no items passed: ten right answers of ten are no proof of 100 %.
    """
    if not n:
        return None
    p = passed / n
    return math.sqrt(p * (1 - p) / n + Z95**2 / (4 * n**2)) / (1 + Z95**2 / n)


def mean(name: str, values: Sequence[float]) -> Metric:
    """The mean of `values` with the standard error of a mean, which takes at least two of them.

    Its interval is the bootstrap's (percentiles), drawn the same way each time.
    """
    n = len(values)
    if n < 2:
        return Metric(name=name, value=fmean(values) if n else None, n=n)
    value, stderr = fmean(values), stdev(values) / math.sqrt(n)
    if n >= _MANY:
        return Metric(name=name, value=value, stderr=stderr, low=value - Z95 * stderr, high=value + Z95 * stderr, n=n)
    draw = random.Random(0)  # noqa: S311 - no secret
    means = sorted(fmean(draw.choices(values, k=n)) for _ in range(_RESAMPLES))
    low, high = means[round(0.025 * (_RESAMPLES - 1))], means[round(0.975 * (_RESAMPLES - 1))]
    return Metric(name=name, value=value, stderr=stderr, low=low, high=high, n=n)


def macro(name: str, groups: Mapping[str, Sequence[bool]]) -> Metric:
    """The mean of the groups' shares, each group counting the same, with the error of a sum of independent shares.

    No group may be empty: it has no share.
    """
    assert groups
    assert all(groups.values())
    shares = [share(name, passed) for passed in groups.values()]
    variance = sum((group.stderr or 0.0) ** 2 for group in shares) / len(shares) ** 2
    value, stderr = fmean(group.value or 0.0 for group in shares), math.sqrt(variance)
    return Metric(
        name=name,
        value=value,
        stderr=stderr,
        low=max(0.0, value - Z95 * stderr),
        high=min(1.0, value + Z95 * stderr),
        n=sum(group.n for group in shares),
    )
