from __future__ import annotations

import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import log_softmax

from tests.unit.evaluation.builders import write_choice
from tests.unit.training.alone import config_of, plan_of, train_alone, train_here
from tests.unit.training.builders import make_config, texts, write_pairs
from tests.unit.training.conftest import LORA, Shop
from tunegate.evaluation import load_suite
from tunegate.evaluation.models.local import LocalModel
from tunegate.evaluation.run import evaluate
from tunegate.models import make_tiny, materialize
from tunegate.training import train
from tunegate.training.data.tokenize import IGNORED, Example, load_tokenizer
from tunegate.training.loop.batches import PairCollator
from tunegate.training.loop.methods import load_model
from tunegate.training.loop.preferences import PreferenceLoss, frozen_reference, preference_loss
from tunegate.training.run.checkpoints import complete_checkpoints
from tunegate.training.run.curves import read_run, read_stored, render
from tunegate.training.run.progress import read_log

METHODS = ("full", "lora", "freeze", "p_tuning", "p_tuning_v2")
BETA = 0.3
# What DeepSpeed, accelerate, peft and torch think of one another's names.
pytestmark = [pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("DeprecationWarning", "FutureWarning")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("preferences")
    make_tiny(made / "model", texts())
    write_pairs(made / "data", 9)
    return made


def example(ids: list[int], trained: int) -> Example:
    labels = [IGNORED] * (len(ids) - trained) + ids[len(ids) - trained :]
    return Example(torch.tensor(ids).numpy(), torch.tensor(labels).numpy())


PAIRS = [
    (example([5, 6, 7, 8, 9], 2), example([5, 6, 7, 20, 21, 22, 23], 4)),
    (example([30, 31, 40, 41, 42, 43], 4), example([30, 31, 50], 1)),
]


def load(folder: Path, method: str) -> tuple[Any, Any]:
    """The model, some steps away from where it began, and its frozen reference."""
    config = make_config(None, folder, folder, model_name_or_path=str(folder / "model"), finetuning_type=method)
    arguments: Any = SimpleNamespace(bf16=False, fp16=False, device=torch.device("cpu"))
    plan = plan_of(config)
    model = load_model(plan, load_tokenizer(folder / "model", "chatml"), arguments)
    frozen = frozen_reference(model, plan, arguments)
    draws = torch.Generator().manual_seed(1)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data += 0.05 * torch.randn(weight.shape, generator=draws)
    return model.eval(), frozen


def log_probability(model: Any, side: Example) -> torch.Tensor:
    """Of one answer after its prompt, alone and without padding."""
    ids, labels = torch.tensor(side.input_ids)[None], torch.tensor(side.labels)[None, 1:]
    logits = model(input_ids=ids, use_cache=False).logits[:, -ids.shape[1] :]
    each = log_softmax(logits[:, :-1], -1).gather(2, ids[:, 1:, None])[..., 0]
    return (each * (labels != IGNORED)).sum()


@pytest.mark.parametrize("ftx", [0.0, 0.5])
@pytest.mark.parametrize("method", METHODS)
def test_loss_and_gradients_are_the_papers(folder: Path, method: str, ftx: float) -> None:
    model, frozen = load(folder, method)
    base = load(folder, "full")[1]
    theirs = []
    for chosen, rejected in PAIRS:
        with torch.no_grad():
            before = log_probability(base, chosen) - log_probability(base, rejected)
        now = log_probability(model, chosen) - log_probability(model, rejected)
        own = -log_probability(model, chosen) / (torch.tensor(chosen.labels) != IGNORED).sum()
        theirs.append(-torch.log(1 / (1 + torch.exp(-BETA * (now - before)))) + ftx * own)
    expected = torch.stack(theirs).mean()
    expected.backward()
    wanted = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad(set_to_none=True)

    objective = PreferenceLoss(model, frozen, BETA, ftx)
    batch = PairCollator(0)(PAIRS)
    batch.pop("tokens")
    objective.begin(model, {**batch, "use_cache": False})
    labels = batch.pop("labels")
    loss = objective.loss(model(**batch, use_cache=False), labels, objective.items(labels))
    loss.backward()

    assert objective.items(labels) == 2
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    found = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-6)
    assert any(float(grad.abs().max()) > 0 for grad in wanted.values())


def test_the_loss_in_double_precision() -> None:
    policy = torch.tensor([[-3.5, -10.0, -2.0], [-4.0, -9.0, -2.0]], dtype=torch.float64)
    reference = torch.tensor([[-3.0, -9.0, -2.5], [-3.0, -9.5, -2.5]], dtype=torch.float64)

    losses, rewards = preference_loss(policy, reference, 0.1)

    gaps = [0.1 * ((c - r) - (rc - rr)) for c, r, rc, rr in zip(*policy.tolist(), *reference.tolist(), strict=True)]
    assert losses.tolist() == pytest.approx([math.log1p(math.exp(-gap)) for gap in gaps], abs=1e-15)
    assert rewards[0].tolist() == pytest.approx([-0.05, -0.1, 0.05], abs=1e-15)


def test_losses_and_rewards_are_trls(folder: Path, tmp_path: Path) -> None:
    """What DPOTrainer of TRL 1.16 logged with this model, these token ids and settings, all pairs in each step."""
    write_pairs(tmp_path / "data", 8)
    changes = {"finetuning_type": "full", "per_device_train_batch_size": 8, "num_train_epochs": 5}
    changes |= {"dataset_dir": str(tmp_path / "data"), "learning_rate": 3e-4, "lr_scheduler_type": "constant"}

    train_alone(settings(folder, tmp_path / "run", **changes))

    names = ("loss", "rewards_chosen", "rewards_rejected", "rewards_margins")
    steps = [[getattr(step, name) for name in names] for step in read_log(tmp_path / "run")]
    theirs = [
        [0.69315, 0.0, 0.0, 0.0],
        [0.37584, 0.02946, -0.83863, 0.86809],
        [0.28422, 0.06013, -1.25463, 1.31476],
        [0.23289, 0.09083, -1.55645, 1.64728],
        [0.20093, 0.12215, -1.76260, 1.88476],
    ]
    torch.testing.assert_close(torch.tensor(steps), torch.tensor(theirs), rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("forked_programs")
def test_two_processes_learn_as_one_does_and_their_version_is_measured(shop: Shop, tmp_path: Path) -> None:
    write_pairs(tmp_path / "data", 9)
    changes = {**LORA, "stage": "dpo", "dataset_dir": str(tmp_path / "data"), "dataset": ("pairs",)}
    changes |= {"lora_dropout": 0.0, "num_train_epochs": 1, "learning_rate": 1e-2}
    two = shop.config("two", run="two", **{**changes, "nproc_per_node": 2, "per_device_train_batch_size": 2})

    version = train(two)[-1]

    one = shop.config("one", run="one", **changes, per_device_train_batch_size=4)
    folder = str(shop.folder / "model")
    train_alone(msgspec.structs.replace(one, store=None, model_name_or_path=folder))
    logs = [[(step.loss, step.rewards_margins) for step in read_log(Path(run.output_dir))] for run in (one, two)]
    torch.testing.assert_close(torch.tensor(logs[1]), torch.tensor(logs[0]), rtol=1e-4, atol=1e-5)
    suite = load_suite(write_choice(tmp_path / "suite", {"care": ["A", "B"]}))
    (measured,) = evaluate(LocalModel(materialize(shop.store, version)), version, [suite])
    assert (measured.digest, len(measured.records)) == (version.digest, 2)


def test_what_fills_a_batch_up_weighs_nothing(folder: Path) -> None:
    model, frozen = load(folder, "lora")
    objective = PreferenceLoss(model, frozen, BETA)
    batch = PairCollator(0)([None, None])
    batch.pop("tokens")

    objective.begin(model, dict(batch))
    labels = batch.pop("labels")
    loss = objective.loss(model(**batch), labels, 1)

    assert (float(loss.detach()), int(objective.items(labels))) == (0.0, 0)


def settings(folder: Path, output: Path, **changes: Any) -> Any:
    usual = {"model_name_or_path": str(folder / "model"), "dataset": ("pairs",), "stage": "dpo", "nproc_per_node": 1}
    return make_config(None, folder / "data", output, **{**usual, "finetuning_type": "lora", **changes})


def test_a_run_learns_what_was_chosen_and_logs_the_rewards(folder: Path, tmp_path: Path) -> None:
    """Seven pairs in steps of four, two at a time, with two held out."""
    changes = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "val_size": 2}
    changes |= {"save_strategy": "steps", "save_steps": 3, "num_train_epochs": 3}

    train_alone(settings(folder, tmp_path, **changes, learning_rate=3e-2))

    first, *_, last = steps = [step for step in read_log(tmp_path) if step.loss is not None]
    assert first.loss == pytest.approx(math.log(2), abs=0.05)
    assert first.rewards_margins == pytest.approx(0, abs=0.1)
    assert last.loss < 0.5 * first.loss
    assert (last.rewards_accuracies, len(steps)) == (1.0, 6)
    assert last.rewards_margins == pytest.approx(last.rewards_chosen - last.rewards_rejected, abs=1e-5)
    held_out = [step for step in read_log(tmp_path) if step.eval_loss is not None]
    assert held_out[-1].eval_loss < held_out[0].eval_loss
    assert held_out[-1].eval_rewards_accuracies == 1.0
    assert complete_checkpoints(tmp_path)[-1].cost.eval_loss == held_out[-1].eval_loss


def test_steps_are_means_over_pairs_however_they_are_batched(folder: Path, tmp_path: Path) -> None:
    changes = {"num_train_epochs": 1, "is_shuffle": False, "learning_rate": 1e-2}
    train_alone(
        settings(folder, tmp_path / "four", **changes, per_device_train_batch_size=1, gradient_accumulation_steps=4)
    )
    train_alone(settings(folder, tmp_path / "one", **changes, per_device_train_batch_size=4))

    four, one = ([step.loss for step in read_log(tmp_path / name)] for name in ("four", "one"))
    assert len(one) == 3
    assert four == pytest.approx(one, abs=1e-5)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_weights_in_parts_come_to_the_same(folder: Path, tmp_path: Path, method: str) -> None:
    changes = {"stage": "dpo", "dataset": ("pairs",), "max_steps": 2, "nproc_per_node": 1}
    (tmp_path / "model").symlink_to(folder / "model")
    (tmp_path / "data").symlink_to(folder / "data")
    for stage in (2, 3):
        train_alone(config_of(tmp_path, f"zero{stage}", method, stage, **{**changes}))

    losses = [[step.loss for step in read_log(tmp_path / f"zero{stage}")] for stage in (2, 3)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    name = "model.safetensors" if method == "full" else "adapter_model.safetensors"
    two, three = (load_file(tmp_path / f"zero{stage}" / "checkpoint-2" / name) for stage in (2, 3))
    torch.testing.assert_close(three, two, rtol=1e-3, atol=1e-5)


def test_a_version_is_published_and_the_run_resumes_to_the_bit(shop: Shop, tmp_path: Path) -> None:
    """With dropout, and from the middle of an epoch."""
    write_pairs(tmp_path / "data", 9)
    changes = {**LORA, "stage": "dpo", "dataset_dir": str(tmp_path / "data"), "dataset": ("pairs",), "save_steps": 2}
    whole = shop.config("liked", run="liked", **changes)

    versions = train_here(whole)

    manifest = shop.store.manifest(versions[-1].name)
    said = {name: manifest.producer.arguments.get(name) for name in ("stage", "pref_beta", "pref_ftx")}
    assert said == {"stage": "dpo", "pref_beta": 0.1, "pref_ftx": 0.0}
    assert (manifest.format, manifest.producer.datasets[0].rows) == ("lora-adapter", 9)
    assert (materialize(shop.store, versions[-1]) / "model.safetensors").is_file()
    shown = render([read_run(Path(whole.output_dir)), read_stored(shop.store, "tiny", "liked")])
    assert shown.count('<path class="v0') == shown.count('<path class="v1') == 8
    assert "Margin between the rewards" in shown

    again = tmp_path / "again"
    shutil.copytree(whole.output_dir, again)
    shutil.rmtree(again / "checkpoint-6")
    folder = str(shop.folder / "model")
    train_alone(msgspec.structs.replace(whole, store=None, output_dir=str(again), model_name_or_path=folder))

    logs = [[(step.loss, step.rewards_margins) for step in read_log(Path(at))] for at in (whole.output_dir, again)]
    assert logs[0] == logs[1]
    kept = [Path(at, "checkpoint-6", "adapter_model.safetensors").read_bytes() for at in (whole.output_dir, again)]
    assert kept[0] == kept[1]
