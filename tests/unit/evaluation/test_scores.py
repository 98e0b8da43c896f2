from __future__ import annotations

import math
import random

import pytest

from tunegate.evaluation.scores import Z95, macro, mean, share, share_stderr


def _wilson(passed: int, n: int) -> tuple[float, float]:
    """The Wilson 95 % interval as the solutions of (p - x)^2 = z^2 x (1 - x) / n."""
    p, z2 = passed / n, Z95**2
    a, b, c = 1 + z2 / n, -(2 * p + z2 / n), p * p
    root = math.sqrt(b * b - 4 * a * c)
    return (-b - root) / (2 * a), (-b + root) / (2 * a)


@pytest.mark.parametrize(("passed", "n"), [(0, 1), (1, 1), (0, 24), (24, 24), (12, 24), (5, 24), (700, 1000)])
def test_the_error_of_a_share_spans_the_wilson_interval(passed: int, n: int) -> None:
    low, high = _wilson(passed, n)
    assert share_stderr(passed, n) == pytest.approx((high - low) / 2 / Z95)


def test_the_error_of_a_share_nears_the_binomial_one_with_many_items() -> None:
    assert share_stderr(30_000, 100_000) == pytest.approx(math.sqrt(0.3 * 0.7 / 100_000), rel=1e-4)


def test_a_share_counts_what_passed() -> None:
    metric = share("score", [True, False, True, True])
    assert (metric.name, metric.value, metric.n, metric.higher_is_better) == ("score", 0.75, 4, True)


@pytest.mark.parametrize(("passed", "n"), [(0, 1), (24, 24), (12, 24), (143, 150)])
def test_a_share_has_wilsons_interval(passed: int, n: int) -> None:
    metric = share("score", [True] * passed + [False] * (n - passed))
    assert (metric.low, metric.high) == pytest.approx(_wilson(passed, n))


@pytest.mark.parametrize(("p", "n"), [(0.95, 50), (0.95, 150), (0.5, 50), (0.8, 150)])
def test_the_interval_of_a_share_holds_the_truth_as_often_as_it_says(p: float, n: int) -> None:
    held = sum(
        math.comb(n, passed) * p**passed * (1 - p) ** (n - passed)
        for passed in range(n + 1)
        if _wilson(passed, n)[0] <= p <= _wilson(passed, n)[1]
    )
    assert held >= 0.93


def test_the_interval_of_a_mean_is_the_bootstraps_and_the_same_each_time() -> None:
    values = [0.0] * 10 + [1.0] * 2  # skewed: the usual interval would reach below 0
    metric = mean("rouge_l", values)
    assert metric == mean("rouge_l", values)
    assert metric.low is not None
    assert metric.high is not None
    assert 0 <= metric.low < 2 / 12 < metric.high <= 0.5
    assert metric.high - 2 / 12 > 2 / 12 - metric.low - 1e-9


def test_the_interval_of_many_values_is_the_usual_one() -> None:
    metric = mean("rouge_l", [0.0, 1.0] * 1000)
    assert metric.stderr is not None
    assert (metric.low, metric.high) == pytest.approx((0.5 - Z95 * metric.stderr, 0.5 + Z95 * metric.stderr))


def test_a_mean_has_the_error_of_a_mean() -> None:
    metric = mean("rouge_l", [0.2, 0.4, 0.9])
    assert metric.value == pytest.approx(0.5)
    assert metric.stderr == pytest.approx(math.sqrt((0.09 + 0.01 + 0.16) / 2 / 3))


def test_what_was_not_measured_has_no_value() -> None:
    assert (share("score", []).value, share("score", []).stderr) == (None, None)
    assert (mean("rouge_l", []).value, mean("rouge_l", [0.5]).stderr) == (None, None)


def test_a_macro_average_of_one_group_has_wilsons_interval() -> None:
    """Around the share itself it would be half as wide where all are right, and hold less than it says."""
    metric = macro("accuracy", {"tea": [True] * 50})
    assert (metric.low, metric.high) == pytest.approx(_wilson(50, 50))
    assert (metric.name, metric.n) == ("accuracy", 50)


def test_each_group_counts_the_same_in_a_macro_average() -> None:
    metric = macro("accuracy", {"small": [True], "large": [False] * 9})
    assert (metric.value, metric.n) == (0.5, 10)
    small, large = share_stderr(1, 1), share_stderr(0, 9)
    assert small is not None
    assert large is not None
    assert metric.stderr == pytest.approx(math.sqrt(small**2 + large**2) / 2)


CLUSTERS = [str(place // 5) for place in range(150)]


def test_intervals_widen_where_items_of_clusters_are_answered_alike() -> None:
    passed = [place // 5 % 3 > 0 for place in range(150)]  # of each three passages, two are understood
    alone, together = share("score", passed), share("score", passed, CLUSTERS)

    assert (together.value, together.n, together.clusters, alone.clusters) == (alone.value, 150, 30, None)
    assert together.low is not None
    assert together.low < (alone.low or 0) - 0.05
    values = [float(each) for each in passed]
    assert (mean("rouge_l", values, CLUSTERS).stderr or 0) > 2 * (mean("rouge_l", values).stderr or 1)


def test_the_interval_of_clusters_holds_the_truth() -> None:
    """30 passages with 5 questions: some are understood well, others not; 0.8 on average, and alike by 0.3."""
    draw, held, naive = random.Random(2), 0, 0  # noqa: S311
    for _ in range(500):
        passed = [
            draw.random() < chance for chance in (draw.betavariate(1.87, 0.467) for _ in range(30)) for _ in range(5)
        ]
        for clusters in (CLUSTERS, ()):
            found = share("score", passed, clusters)
            holds = (found.low or 0) <= 0.8 <= (found.high or 0)
            held, naive = (held + holds, naive) if clusters else (held, naive + holds)
    assert held >= 500 * 0.92  # 0.95 less three standard errors
    assert naive < 500 * 0.85


def test_a_mean_of_subjects_counts_the_clusters_of_each() -> None:
    groups = {"law": [True] * 10 + [False] * 10, "art": [True] * 20}
    alone = macro("accuracy", groups)
    together = macro("accuracy", groups, {"law": [str(n // 5) for n in range(20)], "art": [""] * 20})

    assert (together.value, together.clusters, alone.clusters) == (alone.value, 24, None)
    assert (together.stderr or 0) > (alone.stderr or 1)
