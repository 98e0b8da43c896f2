"""A run that goes on from a checkpoint computes what it would have computed without the break, to the last bit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.unit.training.alone import config_of, make_shop, plan_of, train_alone, train_in_two
from tests.unit.training.forked import Forks
from tunegate.api.errors import TrainingError
from tunegate.training import TrainConfig
from tunegate.training.loop.resume import for_ranks
from tunegate.training.run.progress import read_log

# What DeepSpeed, accelerate, peft and torch think of one another's names.
pytestmark = [pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("DeprecationWarning", "FutureWarning")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shop(tmp_path_factory.mktemp("resume"), 22)  # the last batch is short


def config(folder: Path, name: str, method: str, stage: int, **changes: Any) -> TrainConfig:
    """Six steps with a checkpoint after the third, in the middle of an epoch, and dropout where the method has it."""
    return config_of(folder, name, method, stage, **{"lora_dropout": 0.1, "nproc_per_node": 1, **changes})


@pytest.mark.parametrize(
    ("method", "stage"),
    [
        *((method, stage) for method in ("full", "lora", "freeze") for stage in (1, 2, 3)),
        *((method, stage) for method in ("p_tuning", "p_tuning_v2") for stage in (1, 2)),
    ],
)
def test_a_run_goes_on_exactly(folder: Path, method: str, stage: int) -> None:
    straight = config(folder, f"{method}-{stage}", method, stage)
    train_alone(straight)
    stopped = config(folder, f"{method}-{stage}-again", method, stage)
    output = Path(stopped.output_dir)
    shutil.copytree(straight.output_dir, output)
    shutil.rmtree(output / "checkpoint-6")

    train_alone(stopped)

    assert losses(output) == losses(Path(straight.output_dir))
    again, once = weights(output), weights(Path(straight.output_dir))
    assert again.keys() == once.keys()
    assert all(torch.equal(again[name], once[name]) for name in once)


def test_weights_that_two_processes_share_are_saved_whole(folder: Path, forks: Forks) -> None:
    """ZeRO-3 leaves each process a half; a checkpoint has what one process alone would have trained."""
    methods = ("full", "lora")
    alone = [config(folder, f"{one}-alone", one, 2, lora_dropout=0.0) for one in methods]
    shared = [
        config(folder, f"{one}-shared", one, 3, lora_dropout=0.0, per_device_train_batch_size=2) for one in methods
    ]

    train_in_two(forks, *shared)

    for half, whole in zip(shared, alone, strict=True):
        train_alone(whole)
        ours, theirs = Path(half.output_dir), Path(whole.output_dir)
        assert losses(ours) == pytest.approx(losses(theirs), abs=1e-4)
        torch.testing.assert_close(weights(ours), weights(theirs), rtol=0, atol=1e-3)


def test_nodes_that_share_no_folder_are_told_so(folder: Path, tmp_path: Path) -> None:
    plan = plan_of(config(folder, "here", "full", 2))

    with pytest.raises(TrainingError, match=r"is not the same folder on all nodes; mount one ReadWriteMany volume"):
        for_ranks(plan, tmp_path, 2)


def losses(output: Path) -> list[float]:
    return [progress.loss for progress in read_log(output)]


def weights(output: Path) -> dict[str, Any]:
    (path,) = (output / "checkpoint-6").glob("*.safetensors")
    return load_file(path)
