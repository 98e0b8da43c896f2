from __future__ import annotations

import numpy as np
import pytest

from tunegate.training.data.packing import order_of, pack, padding_share

LENGTHS = np.array([length % 37 + 5 for length in range(0, 1000, 7)])


def test_every_example_comes_once_an_epoch() -> None:
    assert sorted(order_of(LENGTHS, 16, 1, 0).tolist()) == list(range(len(LENGTHS)))


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    first = order_of(LENGTHS, 16, 1, 0).tolist()
    np.random.random(3)

    assert order_of(LENGTHS, 16, 1, 0).tolist() == first
    assert order_of(LENGTHS, 16, 2, 0).tolist() != first
    assert order_of(LENGTHS, 16, 1, 1).tolist() != first


def test_the_order_is_the_one_that_earlier_releases_had() -> None:
    assert order_of(np.ones(8), 2, 42, 0).tolist() == [5, 7, 3, 1, 4, 0, 6, 2]


def test_a_global_batch_holds_examples_of_about_one_length() -> None:
    order = order_of(LENGTHS, 16, 1, 0)

    spread = [np.ptp(LENGTHS[order[start : start + 16]]) for start in range(0, len(order), 16)]

    assert max(spread) <= 8  # of 37


def test_unshuffled_examples_come_as_they_lie() -> None:
    assert order_of(LENGTHS, 16, 1, 3, shuffled=False).tolist() == list(range(len(LENGTHS)))


@pytest.mark.parametrize("shuffled", [True, False])
def test_every_example_lies_in_one_pack_that_has_room_for_it(shuffled: bool) -> None:
    packs = pack(LENGTHS, 64, 1, shuffled=shuffled)

    rows = [packs[index].tolist() for index in range(len(packs))]
    assert sorted(row for one in rows for row in one) == list(range(len(LENGTHS)))
    assert packs.lengths(LENGTHS).tolist() == [sum(LENGTHS[row] for row in one) for one in rows]
    assert max(packs.lengths(LENGTHS)) <= 64


def test_packs_are_nearly_full() -> None:
    lengths = np.random.RandomState(0).randint(20, 400, 10_000)

    filled = pack(lengths, 2048, 1).lengths(lengths)

    assert filled.sum() / (2048 * len(filled)) > 0.99


def test_unshuffled_packs_go_by_their_first_examples() -> None:
    packs = pack(np.array([6, 6, 3, 3, 9, 1]), 10, 1, shuffled=False)

    assert [packs[index].tolist() for index in range(len(packs))] == [[0, 2], [1, 3], [4, 5]]


def test_packs_are_the_same_for_the_same_seed() -> None:
    assert pack(LENGTHS, 64, 1).examples.tolist() == pack(LENGTHS, 64, 1).examples.tolist()
    assert pack(LENGTHS, 64, 1).examples.tolist() != pack(LENGTHS, 64, 2).examples.tolist()


def test_padding_is_what_a_batch_lacks_to_its_longest_row() -> None:
    lengths = np.array([4, 2, 3, 3, 1])

    assert padding_share(lengths, np.arange(5), 2) == pytest.approx(1 - 13 / (8 + 6 + 1))
