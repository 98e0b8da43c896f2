from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from tunegate.api.errors import DataError
from tunegate.training.data.mixture import Mixture, mix

SIZES = (300, 100, 40)


def _shares(rows: np.ndarray, sizes: tuple[int, ...] = SIZES) -> list[float]:
    return list(np.histogram(rows, np.cumsum([0, *sizes]))[0] / len(rows))


def test_data_sets_follow_one_another_unless_they_are_mixed() -> None:
    assert mix(SIZES, Mixture()).train.tolist() == list(range(440))


@pytest.mark.parametrize("strategy", ["interleave_under", "interleave_over"])
def test_a_mixture_is_the_same_for_the_same_seed(strategy: str) -> None:
    one, same, other = (
        mix(SIZES, Mixture(strategy, (0.6, 0.3, 0.1), val_size=0.1, seed=seed))  # type: ignore[arg-type]
        for seed in (1, 1, 2)
    )

    assert one.train.tolist() == same.train.tolist()
    assert one.validation.tolist() == same.validation.tolist()
    assert one.train.tolist() != other.train.tolist()
    assert one.validation.tolist() != other.validation.tolist()


def test_under_ends_when_the_first_data_set_is_used_up_and_doubles_nothing() -> None:
    rows = mix(SIZES, Mixture("interleave_under", (6, 3, 1))).train

    assert len(set(rows.tolist())) == len(rows)
    assert rows[-1] in (299, 399, 439)  # the last row of the one that ended it
    assert np.allclose(_shares(rows), (0.6, 0.3, 0.1), atol=0.08)


def test_over_ends_when_the_last_data_set_is_used_up_and_loses_nothing() -> None:
    rows = mix(SIZES, Mixture("interleave_over", (6, 3, 1))).train

    times = Counter(rows.tolist())
    assert set(times) == set(range(440))
    for first, last in ((0, 300), (300, 400), (400, 440)):  # each begins anew only after its end
        assert len({times[row] for row in range(first, last)}) <= 2
    assert np.allclose(_shares(rows), (0.6, 0.3, 0.1), atol=0.08)


def test_without_weights_data_sets_take_turns() -> None:
    assert mix((5, 2), Mixture("interleave_under")).train.tolist() == [0, 5, 1, 6]
    assert mix((4, 2), Mixture("interleave_over")).train.tolist() == [0, 4, 1, 5, 2, 4, 3]


def test_within_a_mixture_each_data_set_keeps_its_order() -> None:
    rows = mix(SIZES, Mixture("interleave_under", (6, 3, 1))).train

    for first, last in ((0, 300), (300, 400), (400, 440)):
        own = rows[(rows >= first) & (rows < last)]
        assert own.tolist() == list(range(first, first + len(own)))


@pytest.mark.parametrize(("val_size", "held_out"), [(0.0, 0), (0.1, 44), (1.0, 1), (25.0, 25)])
def test_examples_are_for_validation_or_trained_on_never_both(val_size: float, held_out: int) -> None:
    split = mix(SIZES, Mixture(val_size=val_size))

    assert len(split.validation) == held_out
    assert sorted([*split.train.tolist(), *split.validation.tolist()]) == list(range(440))


def test_what_is_held_out_is_not_doubled_into_a_mixture() -> None:
    split = mix((50, 5), Mixture("interleave_over", num_samples=(None, 30), val_size=0.3))

    assert not set(split.train.tolist()) & set(split.validation.tolist())


@pytest.mark.parametrize(
    ("sizes", "val_size", "said"),
    [
        pytest.param(
            (24,), 0.001, r"takes 0 of 24 examples for validation; give a number of them from 1 to 23", id="none"
        ),
        pytest.param((24,), 24.0, r"takes 24 of 24 examples", id="all"),
        pytest.param((30, 1), 30.0, r"takes every example of data set 2", id="all of one"),
    ],
)
def test_an_empty_split_is_refused(sizes: tuple[int, ...], val_size: float, said: str) -> None:
    with pytest.raises(DataError, match=said):
        mix(sizes, Mixture(val_size=val_size))


def test_samples_are_drawn_once_each_before_any_is_drawn_twice() -> None:
    fewer = mix((100, 10), Mixture(num_samples=(20, None))).train
    more = mix((100, 10), Mixture(num_samples=(None, 25))).train

    assert len(fewer) == 30
    assert len(set(fewer.tolist())) == 30
    assert fewer.tolist() == sorted(fewer.tolist()) != [*range(20), *range(100, 110)]
    times = Counter(more.tolist())
    assert len(more) == 125
    assert [times[row] for row in range(100)] == [1] * 100
    assert sorted(times[row] for row in range(100, 110)) == [2] * 5 + [3] * 5
