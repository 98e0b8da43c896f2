from __future__ import annotations

import random

import pytest

from tests.unit.statistics.test_paired import asked, difference, numbered
from tunegate.statistics.clusters import _t95, effective


def test_questions_that_stand_alone_count_each() -> None:
    assert effective([1, 0, 1, 1], []) == 4
    assert effective([1, 0, 1, 1], ["a", "", "", "b"]) == 4


def test_questions_that_all_say_the_same_count_once() -> None:
    """Ten passages with five questions each, answered alike: ten, less for ten being few."""
    clusters = [str(place // 5) for place in range(50)]
    values = [float(place // 5 % 2) for place in range(50)]
    # the variance of ten means: 10/9 of that of ten values
    assert effective(values, clusters) == pytest.approx(9 * (1.959964 / 2.2622) ** 2, rel=1e-3)


def test_questions_that_are_no_more_alike_than_others_count_nearly_each() -> None:
    """Of a known case: each of 50 clusters has one right and one wrong, so they tell nothing of each other."""
    assert effective([1.0, 0.0] * 50, [str(place // 2) for place in range(100)]) > 90


def test_where_all_are_right_clusters_are_what_was_seen() -> None:
    worth = effective([1.0] * 100, [str(place // 10) for place in range(100)])
    assert 7 < worth < 10
    assert effective([1.0] * 100, ["one"] * 100) == 1


@pytest.mark.parametrize(("freedom", "quantile"), [(3, 3.1824), (7, 2.3646), (29, 2.0452), (99, 1.9842)])
def test_students_quantile(freedom: int, quantile: float) -> None:
    assert _t95(freedom) == pytest.approx(quantile, rel=0.01)


def test_a_paired_interval_widens_where_changes_come_in_clusters() -> None:
    before, after = numbered(*[0.0] * 100), numbered(*[1.0] * 10, *[0.0] * 90)
    clusters = [str(place // 10) for place in range(100)]

    alone = difference(asked(before), asked(after))
    together = difference(asked(before, clusters=clusters), asked(after, clusters=clusters))

    assert together.value == alone.value
    assert together.high - together.low > 2 * (alone.high - alone.low)


@pytest.mark.parametrize(("passages", "each"), [(30, 5), (12, 10)])
def test_the_paired_interval_holds_the_truth_of_clusters(passages: int, each: int) -> None:
    """Changes of a passage lean to one side; as if each stood alone, the interval would hold it far less often."""
    draw, held, naive = random.Random(5), 0, 0  # noqa: S311
    clusters = [str(place // each) for place in range(passages * each)]
    for _ in range(400):
        changes = []
        for _ in range(passages):
            lean = draw.choice((0.6, 0.0))
            changes += draw.choices([1, -1, 0], weights=[lean, 0.1, 0.9 - lean], k=each)
        before = numbered(*(float(change < 0) for change in changes))
        after = numbered(*(float(change > 0) for change in changes))
        found = difference(asked(before, clusters=clusters), asked(after, clusters=clusters))
        alone = difference(asked(before), asked(after))
        held += found.low <= 0.2 <= found.high
        naive += alone.low <= 0.2 <= alone.high
    assert held >= 400 * 0.92  # 0.95 less three standard errors
    assert naive < held - 40
