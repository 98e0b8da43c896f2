"""A run that goes on from a checkpoint computes what it would have computed without the break, to the last bit."""

from __future__ import annotations

import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.unit.training.alone import config_of, make_shop, plan_of, start_two, train_alone, train_in_two, world_of_one
from tests.unit.training.forked import Forks
from tunegate.api.errors import TrainingError
from tunegate.training import TrainConfig
from tunegate.training.loop.folders import Folders, agree_on_record
from tunegate.training.loop.resume import await_files
from tunegate.training.loop.trainer import use_node_local_storage
from tunegate.training.loop.trainer_arguments import training_arguments
from tunegate.training.run.checkpoints import complete_checkpoints
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


@pytest.fixture(scope="module")
def shared(folder: Path, forks: Forks) -> dict[str, TrainConfig]:
    """Runs of two processes under ZeRO-3, which leaves each of them a half of the weights."""
    changes = {"lora_dropout": 0.0, "per_device_train_batch_size": 2}
    runs = {method: config(folder, f"{method}-shared", method, 3, **changes) for method in ("full", "lora")}
    train_in_two(forks, *runs.values())
    return runs


def test_weights_that_two_processes_share_are_saved_whole(folder: Path, shared: dict[str, TrainConfig]) -> None:
    """A checkpoint has what one process alone would have trained."""
    for method, half in shared.items():
        whole = config(folder, f"{method}-alone", method, 2, lora_dropout=0.0)
        train_alone(whole)
        ours, theirs = Path(half.output_dir), Path(whole.output_dir)
        assert losses(ours) == pytest.approx(losses(theirs), abs=1e-4)
        torch.testing.assert_close(weights(ours), weights(theirs), rtol=0, atol=1e-3)


def test_two_processes_write_shards_as_transformers_does_also_after_one_was_killed_there(
    folder: Path, shared: dict[str, TrainConfig], forks: Forks, tmp_path: Path
) -> None:
    parted = msgspec.structs.replace(shared["full"], output_dir=str(folder / "parted"))
    shards = {"LARGEST_SHARD": "600000"}  # bytes; the model has 2.5 million

    killed = start_two(forks, parted, **shards, DIE_AT="-00004-of-").wait()
    assert killed == [1, -signal.SIGKILL]
    assert not complete_checkpoints(Path(parted.output_dir))
    train_in_two(forks, parted, **shards)

    expected = AutoModelForCausalLM.from_pretrained(Path(shared["full"].output_dir, "checkpoint-6"))
    expected.save_pretrained(tmp_path, max_shard_size=int(shards["LARGEST_SHARD"]))
    written, saved = (
        {path.name: path.read_bytes() for path in each.glob("model*")}
        for each in (Path(parted.output_dir, "checkpoint-6"), tmp_path)
    )
    assert written == saved
    assert len(saved) > 4
    model, ids = AutoModelForCausalLM.from_pretrained(Path(parted.output_dir, "checkpoint-6")), torch.arange(20)[None]
    assert torch.equal(model(ids).logits, expected(ids).logits)


def test_nodes_that_share_neither_folder_nor_store_are_told_so(folder: Path, tmp_path: Path) -> None:
    plan = plan_of(config(folder, "here", "full", 2))
    told = r"is not the same folder on all nodes, and there is no store .*; give --store, or mount one ReadWriteMany"
    with world_of_one(), pytest.raises(TrainingError, match=told):
        agree_on_record(tmp_path, plan, None)
    with world_of_one(), pytest.raises(TrainingError, match=told):
        use_node_local_storage(plan, training_arguments(plan.config, tmp_path), Folders((0, 1)))


def test_a_file_that_another_rank_has_seen_is_waited_for(tmp_path: Path) -> None:
    """As large as there: network file systems show it later, and smaller."""
    seen = [{"model.safetensors": 3}, {"model.safetensors": 10}]
    (tmp_path / "model.safetensors").write_bytes(bytes(3))
    with pytest.raises(TrainingError, match=r"does not show within 30 s .*; mount a ReadWriteMany volume that does"):
        await_files(tmp_path, seen, seconds=0)

    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(await_files, tmp_path, seen, seconds=60)
        assert not waiting.done()
        (tmp_path / "model.safetensors").write_bytes(bytes(10))
        waiting.result()


def losses(output: Path) -> list[float]:
    return [progress.loss for progress in read_log(output)]


def weights(output: Path) -> dict[str, Any]:
    (path,) = (output / "checkpoint-6").glob("*.safetensors")
    return load_file(path)
