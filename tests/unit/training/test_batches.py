from __future__ import annotations

import numpy as np
import torch

from tunegate.training.batches import Collator, Order
from tunegate.training.encode import IGNORED, Example

LENGTHS = np.array([length % 37 + 5 for length in range(0, 1000, 7)])


def test_every_example_comes_once_an_epoch() -> None:
    assert sorted(Order(LENGTHS, 16, seed=1)) == list(range(len(LENGTHS)))


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    one, same, other = (Order(LENGTHS, 16, seed=seed) for seed in (1, 1, 2))
    torch.rand(3)
    assert list(one) == list(same)
    assert list(one) != list(other)

    same.set_epoch(1)
    assert list(one) != list(same)
    one.set_epoch(1)
    assert list(one) == list(same)


def test_a_batch_holds_examples_of_about_one_length() -> None:
    order = list(Order(LENGTHS, 16, seed=1))

    spread = [
        max(LENGTHS[index] for index in batch) - min(LENGTHS[index] for index in batch)
        for batch in (order[start : start + 16] for start in range(0, len(order), 16))
    ]

    assert max(spread) <= 8  # of 37


def test_a_batch_is_padded_on_the_right_to_its_longest() -> None:
    batch = Collator(9)([Example((1, 2, 3), (IGNORED, 2, 3)), Example((4,), (4,))])

    assert batch["input_ids"].tolist() == [[1, 2, 3], [4, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[IGNORED, 2, 3], [4, IGNORED, IGNORED]]
