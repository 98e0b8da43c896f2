from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.unit.training.builders import texts
from tunegate.models import make_tiny
from tunegate.training.data.tokenize import IGNORED, Example
from tunegate.training.loop.batches import FILLER, Collator, Order

PADDING = 9
LENGTHS = (7, 12, 1, 5)
OTHERS = (9, 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny") / "model", texts())


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def model(folder: Path, request: pytest.FixtureRequest) -> Any:
    loaded = AutoModelForCausalLM.from_pretrained(folder, attn_implementation=request.param, dtype=torch.float32)
    return loaded.eval()


def _example(length: int, seed: int) -> Example:
    ids = np.random.RandomState(seed).randint(10, 300, length).astype(np.int32)
    return Example(ids, np.where(np.arange(length) < length // 2, IGNORED, ids).astype(np.int32))


def _packs() -> list[tuple[Example, ...]]:
    """Two rows of several dialogues, one of which is shorter than the other."""
    return [tuple(_example(length, seed) for seed, length in enumerate(lengths)) for lengths in (LENGTHS, OTHERS)]


@torch.no_grad()
def _furthest(model: Any, batch: dict[str, torch.Tensor]) -> float:
    """How far the logits of a packed dialogue are from those of the same dialogue alone."""
    inputs = {name: value for name, value in batch.items() if name not in ("labels", "tokens")}
    logits = model(**inputs, use_cache=False).logits
    furthest = 0.0
    for row, pack in enumerate(_packs()):
        start = 0
        for example in pack:
            end = start + len(example.input_ids)
            alone = model(torch.tensor(example.input_ids)[None].long(), use_cache=False).logits[0]
            furthest = max(furthest, float((logits[row, start:end] - alone).abs().max()))
            start = end
    return furthest


def test_the_order_changes_with_the_epoch_it_is_told() -> None:
    order = Order(np.arange(40), 4, 1)
    first = list(order)
    order.set_epoch(1)

    assert sorted(order) == sorted(first) == list(range(40))
    assert list(order) != first
    assert list(Order(np.arange(4), 4, 1, shuffled=False)) == [0, 1, 2, 3]


def test_the_last_batch_is_filled_with_nothing() -> None:
    order = Order(np.arange(5), 4, 1, shuffled=False)

    assert list(order) == [0, 1, 2, 3, 4, FILLER, FILLER, FILLER]
    assert len(order) == 8


def test_a_batch_is_padded_on_the_right_to_its_longest() -> None:
    batch = Collator(PADDING)([Example((1, 2, 3), (IGNORED, 2, 3)), Example((4,), (4,))])

    assert batch["input_ids"].tolist() == [[1, 2, 3], [4, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[IGNORED, 2, 3], [4, IGNORED, IGNORED]]
    assert batch["tokens"].item() == 4
    assert "position_ids" not in batch


def test_nothing_takes_no_room_beside_something_and_trains_nothing_alone() -> None:
    beside = Collator(PADDING)([Example((1, 2), (1, 2)), None])
    alone = Collator(PADDING)([None, None])

    assert beside["input_ids"].tolist() == [[1, 2]]
    assert alone["labels"].tolist() == [[IGNORED]]


def test_packed_dialogues_begin_at_0_each_and_so_does_the_padding() -> None:
    pair = (Example((1, 2, 3), (IGNORED, 2, 3)), Example((4, 5), (IGNORED, 5)))

    batch = Collator(PADDING, apart=True)([pair, (Example((6, 7), (6, 7)),)])

    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 5], [6, 7, 9, 9, 9]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1], [0, 1, 0, 1, 2]]
    assert batch["cu_seq_lens_q"].tolist() == [0, 3, 5, 7, 10]
    assert batch["labels"].tolist() == [[IGNORED, 2, 3, IGNORED, 5], [6, 7, *[IGNORED] * 3]]
    assert batch["tokens"].item() == 7
    assert "attention_mask" not in batch


def test_a_packed_dialogue_sees_nothing_of_its_neighbors(model: Any) -> None:
    assert _furthest(model, Collator(PADDING, apart=True)(_packs())) < 1e-5


def test_without_positions_or_with_a_mask_it_would(model: Any) -> None:
    batch = Collator(PADDING, apart=True)(_packs())
    through = torch.arange(batch["input_ids"].shape[1]).expand_as(batch["input_ids"])
    seen = torch.ones_like(batch["input_ids"])

    assert _furthest(model, {**batch, "position_ids": through}) > 1e-3
    assert _furthest(model, {**batch, "attention_mask": seen}) > 1e-3
