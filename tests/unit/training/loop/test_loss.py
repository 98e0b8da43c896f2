from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.unit.training.alone import plan_of
from tests.unit.training.builders import make_config, texts
from tunegate.models import make_tiny
from tunegate.training.data.tokenize import IGNORED, load_tokenizer
from tunegate.training.loop.loss import TrainedPositions
from tunegate.training.loop.methods import load_model

METHODS = ("full", "lora", "freeze", "p_tuning", "p_tuning_v2")
IDS = torch.tensor([[5, 6, 7, 8, 9, 10], [11, 12, 13, 14, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
SOME = [[IGNORED, IGNORED, 7, 8, IGNORED, 10], [IGNORED, 12, 13, 14, IGNORED, IGNORED]]
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers")  # by peft, of its own doing


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny") / "model", texts())


def load(folder: Path, method: str, *, recompute: bool = False) -> Any:
    """The same model each time; an adapter does something from the start."""
    config = make_config(None, folder, folder, model_name_or_path=str(folder), finetuning_type=method)
    arguments: Any = SimpleNamespace(bf16=False, fp16=False)
    model = load_model(plan_of(config), load_tokenizer(folder, "chatml"), arguments)
    if recompute:
        model.activation_checkpointing_enable()
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1, generator=torch.Generator().manual_seed(1))
    return model.train()


def plain(model: Any, labels: torch.Tensor) -> torch.Tensor:
    """What transformers and peft make of the loss themselves; its gradients are left in the model."""
    count = (labels[:, 1:] != IGNORED).sum()
    loss: torch.Tensor = model(
        input_ids=IDS, attention_mask=MASK, labels=labels, num_items_in_batch=count, use_cache=False
    ).loss
    loss.backward()
    return loss


def ours(model: Any, labels: torch.Tensor) -> tuple[torch.Tensor, Any]:
    trained = TrainedPositions(model)
    trained.expect(labels)
    outputs = model(input_ids=IDS, attention_mask=MASK, use_cache=False)
    loss = trained.loss(outputs, labels, int((labels[:, 1:] != IGNORED).sum()))
    loss.backward()
    return loss, outputs


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "labels",
    [
        pytest.param(SOME, id="some"),
        pytest.param([[5, 6, 7, 8, 9, 10], [11, 12, 13, 14, IGNORED, IGNORED]], id="all"),
        pytest.param([[IGNORED] * 6, [IGNORED, 12, IGNORED, IGNORED, IGNORED, IGNORED]], id="none in a row"),
    ],
)
def test_loss_and_gradients_equal_the_librarys_own(folder: Path, method: str, labels: list[list[int]]) -> None:
    wanted = torch.tensor(labels)
    if method == "p_tuning":
        wanted[:, 0] = IGNORED  # peft would train the first token, which a soft prompt could predict; nobody else does
    theirs, mine = load(folder, method), load(folder, method)

    expected = plain(theirs, wanted)
    loss, outputs = ours(mine, wanted)

    assert outputs.logits.shape == ((wanted[:, 1:] != IGNORED).sum(), mine.config.vocab_size)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradients(mine), gradients(theirs), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("method", [method for method in METHODS if method != "p_tuning_v2"])
def test_layers_that_are_computed_again_change_nothing(folder: Path, method: str) -> None:
    once, twice = load(folder, method), load(folder, method, recompute=True)

    expected, _ = ours(once, torch.tensor(SOME))
    loss, _ = ours(twice, torch.tensor(SOME))

    assert any(getattr(module, "gradient_checkpointing", False) for module in twice.modules())
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradients(twice), gradients(once))


@pytest.mark.parametrize("method", ["full", "lora"])
def test_packed_dialogues_have_the_loss_they_have_alone(folder: Path, method: str) -> None:
    labels = torch.tensor(SOME)
    alone, packed = load(folder, method), load(folder, method)
    expected, _ = ours(alone, labels)
    row = torch.cat([IDS[0], IDS[1, :4], torch.zeros(2, dtype=torch.long)])[None]
    targets = torch.cat([labels[0], labels[1, :4], torch.full((2,), IGNORED)])[None]
    places = torch.tensor([[*range(6), *range(4), *range(2)]])

    trained = TrainedPositions(packed)
    trained.expect(targets)
    outputs = packed(input_ids=row, position_ids=places, use_cache=False)
    loss = trained.loss(outputs, targets, int((targets[:, 1:] != IGNORED).sum()))

    torch.testing.assert_close(loss, expected)
