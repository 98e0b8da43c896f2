from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec.structs import replace
from transformers.trainer_utils import SchedulerType
from transformers.training_args import OptimizerNames

from tests.unit.training.alone import world_of_one
from tests.unit.training.builders import make_config
from tunegate.api.errors import UsageError
from tunegate.training.config import OPTIMIZERS, SCHEDULERS, check_config
from tunegate.training.loop import trainer_arguments
from tunegate.training.loop.trainer_arguments import training_arguments

# What DeepSpeed, accelerate, peft and torch think of one another's names.
pytestmark = [pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("DeprecationWarning", "FutureWarning")]


@pytest.fixture(autouse=True)
def world() -> Iterator[None]:
    with world_of_one():
        yield


def read(folder: Path, **changes: Any) -> Any:
    return training_arguments(make_config(None, folder, folder, **changes), folder)


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        pytest.param({}, 0, id="none"),
        pytest.param({"warmup_ratio": 0.15}, 2, id="share, rounded up"),
        pytest.param({"warmup_steps": 4}, 4, id="steps"),
        pytest.param({"warmup_steps": 1, "warmup_ratio": 0.5}, 1, id="steps win"),
    ],
)
def test_the_learning_rate_grows_for_so_many_steps(tmp_path: Path, changes: dict[str, Any], steps: int) -> None:
    assert read(tmp_path, **changes).get_warmup_steps(10) == steps


def test_what_goes_by_the_same_name_means_the_same(tmp_path: Path) -> None:
    changes = {"weight_decay": 0.1, "max_grad_norm": 0.5, "lr_scheduler_type": "linear", "learning_rate": 2e-6}

    arguments = read(tmp_path, **changes)

    assert {name: getattr(arguments, name) for name in changes} == changes
    assert arguments.hf_deepspeed_config.get_value("gradient_clipping") == 0.5
    assert arguments.eval_strategy == "no"


def test_schedules_and_optimizers_are_those_of_transformers(tmp_path: Path) -> None:
    assert set(SCHEDULERS) == {kind.value for kind in SchedulerType}
    others = {kind.value for kind in OptimizerNames} - set(OPTIMIZERS)
    families = r"(galore|apollo)_.*|lomo|adalomo|adamw_torch_(xla|npu_fused)"
    assert [name for name in others if not re.fullmatch(families, name)] == []


@pytest.mark.parametrize("name", SCHEDULERS)
def test_each_schedule_can_be_had(tmp_path: Path, name: str) -> None:
    needs = {"cosine_with_min_lr": {"min_lr": 1e-7}, "cosine_warmup_with_min_lr": {"min_lr_rate": 0.1}}
    needs |= {"warmup_stable_decay": {"num_decay_steps": 2}, "cosine_with_restarts": {"num_cycles": 3}}

    arguments = read(
        tmp_path, lr_scheduler_type=name, lr_scheduler_kwargs=json.dumps(needs.get(name, {})), val_size=0.1
    )

    assert (arguments.lr_scheduler_type.value, arguments.lr_scheduler_kwargs) == (name, needs.get(name, {}))


def test_an_optimizer_is_the_one_that_is_named(tmp_path: Path) -> None:
    usual, other = read(tmp_path), read(tmp_path, optim="adafactor", adam_beta2=0.95)

    assert (usual.optim, usual.adam_beta2) == ("adamw_torch_fused", 0.999)  # torch's AdamW, in one kernel
    assert (other.optim, other.adam_beta2) == ("adafactor", 0.95)
    with pytest.raises(UsageError, match="pip install torch-optimi"):
        read(tmp_path, optim="stable_adamw")


def test_adamw_in_a_file_is_torchs_which_needs_no_compiler(tmp_path: Path) -> None:
    (tmp_path / "ds.json").write_text(
        '{"optimizer": {"type": "AdamW", "params": {"betas": [0.9, 0.95]}}, "zero_optimization": {"stage": 2}}'
    )
    config = make_config(None, tmp_path, tmp_path, deepspeed=str(tmp_path / "ds.json"))
    with pytest.raises(UsageError, match=r"betas \[0.9, 0.95\], but --adam_beta1 and --adam_beta2 are \[0.9, 0.999\]"):
        check_config(config)

    check_config(replace(config, adam_beta2=0.95))
    assert "optimizer" not in training_arguments(replace(config, adam_beta2=0.95), tmp_path).hf_deepspeed_config.config


def test_only_the_end_is_saved_where_nothing_is_asked_to_be(tmp_path: Path) -> None:
    arguments = read(tmp_path, save_strategy="no")

    assert (arguments.save_strategy, arguments.save_steps > 1e6, arguments.eval_strategy) == ("steps", True, "no")


def test_rows_are_held_out_for_each_checkpoint(tmp_path: Path) -> None:
    arguments = read(tmp_path, val_size=0.1, save_strategy="steps", save_steps=7)

    assert (arguments.eval_strategy, arguments.eval_steps) == (arguments.save_strategy, arguments.save_steps)


def test_what_a_deepspeed_file_leaves_out_is_as_the_run_was_asked(tmp_path: Path) -> None:
    file = tmp_path / "ds.json"
    file.write_text(json.dumps({"zero_optimization": {"stage": 3}}))

    arguments = read(tmp_path, deepspeed=str(file), max_grad_norm=0.3, gradient_accumulation_steps=3)

    filled = arguments.hf_deepspeed_config
    assert filled.get_value("gradient_clipping") == 0.3
    assert filled.get_value("gradient_accumulation_steps") == 3


@pytest.mark.parametrize(
    ("requested", "method", "accelerator", "recomputes"),
    [
        pytest.param("auto", "full", False, False, id="time on a CPU"),
        pytest.param("auto", "full", True, True, id="memory on a GPU"),
        pytest.param("auto", "p_tuning_v2", True, False, id="not with prompts in a cache"),
        pytest.param("true", "lora", False, True, id="as requested"),
        pytest.param("false", "lora", True, False, id="as not requested"),
    ],
)
def test_layers_are_computed_again_where_memory_is_scarce(
    tmp_path: Path, requested: Any, method: Any, accelerator: bool, recomputes: bool
) -> None:
    config = make_config(None, tmp_path, tmp_path, gradient_checkpointing=requested, finetuning_type=method)

    assert trainer_arguments.recomputes_layers(config, on_cpu=not accelerator) is recomputes


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is a GPU")
def test_float16_is_for_gpus(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--fp16 needs a GPU"):
        read(tmp_path, fp16=True)


def test_tensorboard_is_asked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_arguments, "find_spec", lambda _: None)

    with pytest.raises(UsageError, match="pip install tensorboard"):
        read(tmp_path, report_to="tensorboard")


@pytest.mark.parametrize(
    ("method", "changes", "said"),
    [
        pytest.param("p_tuning", {"packing": True}, "packing", id="packing, v1"),
        pytest.param("p_tuning_v2", {"packing": True}, "packing", id="packing, v2"),
        pytest.param("p_tuning", {"deepspeed": "zero3.json"}, "ZeRO-3", id="ZeRO-3, v1"),
        pytest.param("p_tuning_v2", {"deepspeed": "zero3.json"}, "ZeRO-3", id="ZeRO-3, v2"),
        pytest.param("p_tuning_v2", {"gradient_checkpointing": "true"}, "--gradient_checkpointing", id="recomputing"),
    ],
)
def test_learned_prompts_refuse_what_they_can_not_be_used_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, changes: dict[str, Any], said: str
) -> None:
    (tmp_path / "zero3.json").write_text('{"zero_optimization": {"stage": 3}}')
    monkeypatch.chdir(tmp_path)

    with pytest.raises(UsageError, match=f"{method} .*{said}|{said}.* {method}"):
        check_config(make_config(None, tmp_path, tmp_path, finetuning_type=method, **changes))
    check_config(make_config(None, tmp_path, tmp_path, finetuning_type="lora", **changes))


def test_bfloat16_is_used_as_requested() -> None:
    assert trainer_arguments.computes_in_bfloat16("true") is True
    assert trainer_arguments.computes_in_bfloat16("false") is False
