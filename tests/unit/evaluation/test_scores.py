from __future__ import annotations

import math

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


def test_a_mean_has_the_error_of_a_mean() -> None:
    metric = mean("rouge_l", [0.2, 0.4, 0.9])
    assert metric.value == pytest.approx(0.5)
    assert metric.stderr == pytest.approx(math.sqrt((0.09 + 0.01 + 0.16) / 2 / 3))


def test_what_was_not_measured_has_no_value() -> None:
    assert (share("score", []).value, share("score", []).stderr) == (None, None)
    assert (mean("rouge_l", []).value, mean("rouge_l", [0.5]).stderr) == (None, None)


def test_each_group_counts_the_same_in_a_macro_average() -> None:
    metric = macro("accuracy", {"small": [True], "large": [False] * 9})
    assert (metric.value, metric.n) == (0.5, 10)
    small, large = share_stderr(1, 1), share_stderr(0, 9)
    assert small is not None
    assert large is not None
    assert metric.stderr == pytest.approx(math.sqrt(small**2 + large**2) / 2)
