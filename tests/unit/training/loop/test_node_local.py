"""Nodes that each have a folder of their own: what the store is given, and what it gives back, is all they share."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.unit.training.alone import prepared_plan, train_in_two
from tests.unit.training.conftest import Shop
from tests.unit.training.forked import Forks
from tests.waiting import wait_for
from tunegate.api.codec import to_json
from tunegate.training import TrainConfig
from tunegate.training.run.checkpoints import complete_checkpoints, step_of, versions_of
from tunegate.training.run.progress import read_log

SHARDS = {"LARGEST_SHARD": "600000"}  # bytes; the model has 2.5 million


@pytest.fixture(scope="module")
def common(shop: Shop, forks: Forks) -> TrainConfig:
    """Two processes under ZeRO-3 that share a folder."""
    zero3 = shop.folder / "zero3.json"
    zero3.write_text(json.dumps({"zero_optimization": {"stage": 3}, "zero_allow_untested_optimizer": True}))
    base = {"model_name_or_path": str(shop.folder / "model"), "deepspeed": str(zero3)}
    changes = {"num_train_epochs": 1, "save_strategy": "steps", "save_steps": 3, "per_device_train_batch_size": 2}
    config = shop.config("common", run="common", finetuning_type="full", nproc_per_node=1, **base, **changes)
    train_in_two(forks, config, **SHARDS)
    return config


def plans_of(config: TrainConfig, run: str, folders: Sequence[Path]) -> list[Path]:
    """The run of two nodes in these folders, the first of which knows how it began."""
    paths = []
    for folder in folders:
        plan = prepared_plan(msgspec.structs.replace(config, output_dir=str(folder), run=run), len(folders))
        (folder / "plan.json").write_bytes(to_json(plan))
        paths.append(folder / "plan.json")
    (folders[1] / "run.json").unlink()
    return paths


def losses(folder: Path) -> list[tuple[int, float | None]]:
    return [(step.current_steps, step.loss) for step in read_log(folder)]


def published(shop: Shop, run: str) -> list[int]:
    return [step_of(version) for version in versions_of(shop.store, "tiny", run)]


def test_each_node_sends_its_part_and_one_that_lost_its_folder_resumes_from_the_store(
    common: TrainConfig, shop: Shop, forks: Forks, tmp_path: Path
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    plans, now = plans_of(common, "two-folders", (here, there)), tmp_path / "now"
    ranks = forks.start(plans, 2, **SHARDS, DIE_AT="checkpoint-6/model-00004-of-", DIE_WITH=str(now))
    wait_for(lambda: published(shop, "two-folders") == [3], seconds=300, what=f"a version, see {here}/ranks.log")
    now.touch()
    assert ranks.wait() == [1, -signal.SIGKILL], (here / "ranks.log").read_text()
    assert published(shop, "two-folders") == [3]
    assert not list(there.glob("checkpoint-3/model-00001*"))
    assert list(there.glob("checkpoint-3/model-00002*"))

    shutil.rmtree(there)
    assert forks.start(plans_of(common, "two-folders", (here, there)), 2, **SHARDS).wait() == [0, 0]
    assert losses(here) == losses(Path(common.output_dir))
    one = shop.store.resolve("tiny/two-folders/checkpoint-6")
    fetched = shop.store.fetch(one.uri, tmp_path / "fetched", digest=one.digest, include_resume=True)
    shared = shop.store.fetch("tiny/common/checkpoint-6", tmp_path / "shared", include_resume=True)
    names = [{path.relative_to(each).as_posix() for path in each.rglob("*")} for each in (fetched, shared)]
    assert names[0] == names[1]
    weights = [{path.name: path.read_bytes() for path in each.glob("model*")} for each in (fetched, shared)]
    assert weights[0] == weights[1]
    assert len(weights[0]) > 4

    model, expected = (AutoModelForCausalLM.from_pretrained(each) for each in (fetched, shared))
    ids = torch.arange(20)[None]
    assert torch.equal(model(ids).logits, expected(ids).logits)


def test_a_node_that_is_left_alone_goes_on_from_the_store(
    common: TrainConfig, shop: Shop, forks: Forks, tmp_path: Path
) -> None:
    """It has a part of what two have written, which nobody can resume from."""
    here, there = tmp_path / "here", tmp_path / "there"
    assert forks.start(plans_of(common, "left-alone", (here, there)), 2, **SHARDS).wait() == [0, 0]
    assert [one.step for one in complete_checkpoints(there) if one.marker.part] == [3, 6]
    longer = msgspec.structs.replace(common, num_train_epochs=2)
    (there / "plan.json").write_bytes(to_json(prepared_plan(msgspec.structs.replace(longer, run="left-alone"), 1)))

    assert forks.start(there / "plan.json", 1, **SHARDS).wait() == [0], (there / "ranks.log").read_text()

    assert "is converted" in (there / "ranks.log").read_text()
    assert losses(there)[:6] == losses(here)
    assert published(shop, "left-alone") == [3, 6, 9, 12]
    assert not any(one.marker.part for one in complete_checkpoints(there))
