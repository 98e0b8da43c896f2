"""A run goes on with another number of processes, and computes what it would have computed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file

from tests.unit.training.alone import config_of, make_shop, train_alone, train_in_two
from tests.unit.training.forked import Forks
from tunegate.training import TrainConfig
from tunegate.training.run.progress import read_log

# What DeepSpeed, accelerate, peft and torch think of one another's names.
pytestmark = [pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("DeprecationWarning", "FutureWarning")]
# Weights that decay and weights that don't are two groups, which ZeRO-3 mixes up.
KINDS = [("full", 3), ("lora", 2), ("freeze", 1)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Path:
    """Runs of two processes and one of one process; that one was broken off and went on with two."""
    folder = make_shop(tmp_path_factory.mktemp("universal"), 22)
    alone = config(folder, "alone", *KINDS[0], gradient_accumulation_steps=2)
    train_alone(alone)
    train_in_two(forks, *(config(folder, method, method, stage) for method, stage in KINDS), broken(alone))
    return folder


def config(folder: Path, name: str, method: str, stage: int, **changes: Any) -> TrainConfig:
    """Six steps of four dialogues in two processes, with a checkpoint after the third."""
    settings = {"per_device_train_batch_size": 2, "weight_decay": 0.3, **changes}
    return config_of(folder, name, method, stage, **settings)


def broken(run: TrainConfig) -> TrainConfig:
    """The same run as it was after its third step, killed while it went on in other numbers."""
    output = Path(f"{run.output_dir}-broken")
    shutil.copytree(run.output_dir, output)
    shutil.rmtree(output / "checkpoint-6")
    (output / ".universal-0123.partial").mkdir()
    return msgspec.structs.replace(run, output_dir=str(output))


@pytest.mark.parametrize(("method", "stage"), KINDS)
def test_one_process_goes_on_with_what_two_began(folder: Path, method: str, stage: int) -> None:
    straight = config(folder, method, method, stage)
    alone = broken(straight)

    train_alone(alone)

    assert_same(Path(alone.output_dir), Path(straight.output_dir))


def test_two_processes_go_on_with_what_one_began(folder: Path) -> None:
    assert_same(folder / "alone-broken", folder / "alone")


def assert_same(output: Path, expected: Path) -> None:
    losses = [[step.loss for step in read_log(each)] for each in (output, expected)]
    assert len(losses[0]) == 6
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    ours, theirs = (load_file(*(each / "checkpoint-6").glob("*.safetensors")) for each in (output, expected))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert not list(output.glob(".*universal*"))
    assert not list(output.glob(".shared*"))
