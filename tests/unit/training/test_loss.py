from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.unit.training.builders import texts
from tunegate.models import make_tiny
from tunegate.training.encode import IGNORED
from tunegate.training.loss import TrainedPositions

IDS = torch.tensor([[5, 6, 7, 8, 9, 10], [11, 12, 13, 14, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny") / "model", texts())


@pytest.mark.parametrize(
    "labels",
    [
        pytest.param([[IGNORED, IGNORED, 7, 8, IGNORED, 10], [IGNORED, 12, 13, 14, IGNORED, IGNORED]], id="some"),
        pytest.param([[5, 6, 7, 8, 9, 10], [11, 12, 13, 14, IGNORED, IGNORED]], id="all"),
        pytest.param([[IGNORED] * 6, [IGNORED, 12, IGNORED, IGNORED, IGNORED, IGNORED]], id="none in a row"),
    ],
)
def test_loss_and_gradients_equal_the_models_own(folder: Path, labels: list[list[int]]) -> None:
    wanted = torch.tensor(labels)
    count = int((wanted[:, 1:] != IGNORED).sum())
    plain, ours = (AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32) for _ in range(2))
    plain_loss = plain(input_ids=IDS, attention_mask=MASK, labels=wanted, num_items_in_batch=count).loss
    plain_loss.backward()

    trained = TrainedPositions(ours)
    trained.expect(wanted)
    outputs = ours(input_ids=IDS, attention_mask=MASK)
    loss = trained.loss(outputs, wanted, count)
    loss.backward()

    assert outputs.logits.shape == (count, ours.config.vocab_size)
    torch.testing.assert_close(loss, plain_loss)
    gradients = {name: weight.grad for name, weight in plain.named_parameters()}
    for name, weight in ours.named_parameters():
        torch.testing.assert_close(weight.grad, gradients[name], msg=name)
