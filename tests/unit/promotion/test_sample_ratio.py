"""A split that is not what was asked for is told apart from one that chance makes."""

from __future__ import annotations

import math
import random

import pytest

from tunegate.promotion.sample_ratio import ENOUGH, LEAST, log_evidence, mismatch


@pytest.mark.parametrize(
    ("split", "weight", "is_other"),
    [
        pytest.param((10, 90), 10, False, id="as asked"),
        pytest.param((0, 1000), 10, True, id="none"),
        pytest.param((33, 67), 20, False, id="a third, few"),
        pytest.param((330, 670), 20, True, id="a third"),
        pytest.param((200, 800), 10, True, id="twice"),
        pytest.param((1000, 0), 50, True, id="all"),
        pytest.param((0, LEAST - 1), 50, False, id="too few to tell"),
        pytest.param((70, 930), 10, False, id="seldom, and possible"),
    ],
)
def test_a_split_is_held_against_the_weight(split: tuple[int, int], weight: int, is_other: bool) -> None:
    assert bool(mismatch([split], weight)) == is_other


def test_the_numbers_are_told() -> None:
    said = mismatch([(330, 670)], 20)
    assert said.startswith("330 of 1000 questions (33 %) went to the candidate, where 20 % were asked for; chance")


def test_it_must_have_been_so_at_every_moment() -> None:
    assert not mismatch([(190, 810), (330, 670)], 20)
    assert not mismatch([(330, 670), (4, 6)], 20)
    assert mismatch([(330, 670), (340, 690)], 20)
    assert not mismatch([], 20)


@pytest.mark.parametrize("weight", [2, 10, 50])
def test_threads_of_a_gateway_that_go_in_turns_are_no_other_split(weight: int) -> None:
    """Each begins with the stable, so in 32 of them the candidate's first turns come late."""
    turns = [0] * 32
    candidate, every = 0, 100 // weight
    for n in range(1, 3001):
        thread = n % len(turns)
        turns[thread] += 1
        candidate += turns[thread] % every == 0
        assert mismatch([(candidate, n - candidate)], weight) == ""


def test_counts_that_are_of_different_times_must_agree_on_the_direction() -> None:
    assert not mismatch([(100, 400), (400, 100)], 50)
    assert mismatch([(100, 400), (150, 400)], 50)


@pytest.mark.parametrize("weight", [1, 10, 50, 99])
def test_the_evidence_is_one_on_average_where_the_split_is_right(weight: int) -> None:
    n, share = 40, weight / 100
    average = math.fsum(
        math.comb(n, k) * share**k * (1 - share) ** (n - k) * math.exp(log_evidence(k, n - k, weight))
        for k in range(n + 1)
    )
    assert average == pytest.approx(1)


@pytest.mark.parametrize("weight", [1, 10, 50])
def test_a_right_split_raises_no_alarm_however_often_it_is_looked_at(weight: int) -> None:
    rng = random.Random(7)  # noqa: S311
    for _ in range(20):
        candidate = 0
        for n in range(1, 3001):
            candidate += rng.random() < weight / 100
            assert log_evidence(candidate, n - candidate, weight) < math.log(ENOUGH)
