from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.unit.training.alone import make_shop, plan_of, train_alone, world_of_one
from tests.unit.training.builders import make_config
from tunegate.training.data.tokenize import IGNORED, Example, load_tokenizer
from tunegate.training.loop.batches import Collator
from tunegate.training.loop.methods import load_model
from tunegate.training.loop.trainer import FineTuningTrainer
from tunegate.training.loop.trainer_arguments import training_arguments
from tunegate.training.run.checkpoints import complete_checkpoints
from tunegate.training.run.layout import foreign_checkpoints
from tunegate.training.run.progress import read_log

# What DeepSpeed, accelerate, peft and torch think of one another's names.
pytestmark = [pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("DeprecationWarning", "FutureWarning")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shop(tmp_path_factory.mktemp("trainer"), 24)


def settings(folder: Path, output: Path, **changes: Any) -> Any:
    changes = {"finetuning_type": "lora", "model_name_or_path": str(folder / "model"), "nproc_per_node": 1, **changes}
    return make_config(None, folder / "data", output, **changes)


def example(length: int, trained: int) -> Example:
    ids = list(range(5, 5 + length))
    labels = [IGNORED] * (length - trained) + ids[length - trained :]
    return Example(torch.tensor(ids).numpy(), torch.tensor(labels).numpy())


@pytest.mark.parametrize("rows", [1, 2, 8])
@pytest.mark.parametrize(
    ("method", "packing"),
    [("full", False), ("full", True), ("p_tuning", False), ("p_tuning_v2", False)],
    ids=["full", "packed", "p_tuning", "p_tuning_v2"],
)
def test_validation_is_the_mean_over_all_trained_tokens(
    folder: Path, tmp_path: Path, method: str, packing: bool, rows: int
) -> None:
    held_out = [example(9, 2), example(30, 20), example(5, 1)]
    config = settings(folder, tmp_path, finetuning_type=method, per_device_train_batch_size=rows, packing=packing)
    usual = settings(folder, tmp_path, finetuning_type=method)
    with world_of_one():
        arguments = training_arguments(config, tmp_path)
        tokenizer = load_tokenizer(folder / "model", "chatml")
        model = load_model(plan_of(config), tokenizer, arguments)
        plain = load_model(plan_of(usual), tokenizer, arguments).eval()
        collator = Collator(0, apart=packing)
        trainer = FineTuningTrainer(
            model=model, args=arguments, eval_dataset=held_out, data_collator=collator, is_shuffle=True
        )

        loss = trainer.evaluate()["eval_loss"]

    with torch.no_grad():
        ids = [torch.tensor(one.input_ids)[None] for one in held_out]
        labels = [torch.tensor(one.labels)[None] for one in held_out]
        sums = [plain(input_ids=a, labels=b, num_items_in_batch=1).loss for a, b in zip(ids, labels, strict=True)]
    assert loss == pytest.approx(float(sum(sums)) / 23, abs=1e-5)


def test_what_was_held_out_is_measured_with_each_checkpoint(folder: Path, tmp_path: Path) -> None:
    config = settings(
        folder, tmp_path, val_size=4, save_strategy="steps", save_steps=3, max_steps=5, learning_rate=1e-2
    )

    train_alone(config)

    measured = [one for one in read_log(tmp_path) if one.eval_loss is not None]
    assert [one.current_steps for one in measured] == [3, 5]
    assert measured[1].eval_loss < measured[0].eval_loss
    losses = [one.cost.eval_loss for one in complete_checkpoints(tmp_path)]
    assert losses == [one.eval_loss for one in measured]


def test_tied_weights_are_saved_once(folder: Path, tmp_path: Path) -> None:
    train_alone(settings(folder, tmp_path, finetuning_type="full", max_steps=1))

    checkpoint = tmp_path / "checkpoint-1"
    base = folder / "model" / "model.safetensors"
    assert (checkpoint / "model.safetensors").stat().st_size == base.stat().st_size
    model, read = AutoModelForCausalLM.from_pretrained(checkpoint, output_loading_info=True)
    assert not read["missing_keys"]
    assert torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)


def test_what_an_adapter_resumes_from_has_no_weight_of_its_base(folder: Path, tmp_path: Path) -> None:
    """Nor the head, which shares its weights with the embeddings, and is not named where parameters are."""
    train_alone(settings(folder, tmp_path, max_steps=1))

    (states,) = (tmp_path / "checkpoint-1").rglob("mp_rank_00_model_states.pt")
    names = list(torch.load(states, weights_only=False)["module"])
    assert names
    assert [name for name in names if "lora_" not in name] == []


def test_an_optimizer_in_main_memory_needs_no_compiler(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "offload.json"
    file.write_text(json.dumps({"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}}))
    monkeypatch.setenv("PATH", "")

    train_alone(settings(folder, tmp_path / "offload", deepspeed=str(file), max_steps=2))

    assert len(read_log(tmp_path / "offload")) == 2


def test_packed_rows_train_without_an_attention_mask(folder: Path, tmp_path: Path) -> None:
    train_alone(settings(folder, tmp_path, packing=True, finetuning_type="full", max_steps=2))

    (first, *_) = read_log(tmp_path)
    assert first.epoch == 1.0  # all rows in one step


def test_a_last_step_that_is_mostly_empty_counts_what_it_has(folder: Path, tmp_path: Path) -> None:
    """Nine rows in steps of eight: the second has one, and three batches without any."""
    changes = {"max_samples": 9, "num_train_epochs": 1, "finetuning_type": "full", "is_shuffle": False}
    train_alone(
        settings(folder, tmp_path / "four", **changes, per_device_train_batch_size=2, gradient_accumulation_steps=4)
    )
    train_alone(settings(folder, tmp_path / "one", **changes, per_device_train_batch_size=8))

    four, one = ([step.loss for step in read_log(tmp_path / name)] for name in ("four", "one"))
    assert len(one) == 2
    assert four == pytest.approx(one, abs=1e-5)


def test_tensorboard_has_the_losses(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")

    train_alone(settings(folder, tmp_path, report_to="tensorboard", max_steps=1))

    assert list((tmp_path / "runs").rglob("events.out.tfevents.*"))


def test_a_checkpoint_is_known_for_the_runs_own_before_anything_of_it_is_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def save_model(*_: Any, **__: Any) -> None:
        raise Killed

    monkeypatch.setattr(FineTuningTrainer, "save_model", save_model)
    with pytest.raises(Killed):
        train_alone(settings(folder, tmp_path, max_steps=1))

    assert (tmp_path / "checkpoint-1").is_dir()
    assert foreign_checkpoints(tmp_path) == []
