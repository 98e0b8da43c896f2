"""A run in this very process, alone in its world: what needs no second process takes no time to start.

And one in two processes, for what does.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from tests.unit.training.builders import dialogues, make_config, texts, write_dialogues
from tests.unit.training.forked import Forks, Ranks
from tunegate.api.codec import to_json
from tunegate.api.versions import BaseModel, ModelVersion, Producer, Release
from tunegate.models import make_tiny
from tunegate.processes import free_port
from tunegate.training import TrainConfig
from tunegate.training.data.prepare import prepare
from tunegate.training.launch.lifecycle import begin, finish
from tunegate.training.loop import trainer
from tunegate.training.run.layout import RECORD
from tunegate.training.run.plan import Plan, RunRecord
from tunegate.training.run.preemption import StopRequest
from tunegate.training.run.progress import Report


def make_shop(folder: Path, rows: int) -> Path:
    """A tiny base model in `folder`/model and `rows` dialogues in `folder`/data."""
    make_tiny(folder / "model", texts())
    write_dialogues(folder / "data", dialogues(rows))
    return folder


def config_of(folder: Path, name: str, method: str, zero: int, **changes: Any) -> TrainConfig:
    """A run of one epoch by `method` under a stage of ZeRO, with a checkpoint after each third step."""
    deepspeed = folder / f"zero{zero}.json"
    deepspeed.write_text(json.dumps({"zero_optimization": {"stage": zero}, "zero_allow_untested_optimizer": True}))
    settings = {
        "model_name_or_path": str(folder / "model"),
        "finetuning_type": method,
        "deepspeed": str(deepspeed),
        "num_train_epochs": 1,
        "save_strategy": "steps",
        "save_steps": 3,
    }
    return make_config(None, folder / "data", folder / name, **{**settings, **changes})


def plan_of(config: TrainConfig, tokens: tuple[Path, ...] = (), base: BaseModel | None = None) -> Plan:
    return Plan(
        config=config,
        base_folder=config.model_name_or_path,
        tokens=tuple(map(str, tokens)),
        release=Release(format="huggingface", base=base),
        producer=Producer(kind="test"),
    )


def prepared_plan(config: TrainConfig, processes: int, base: BaseModel | None = None) -> Plan:
    output = Path(config.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    if not (output / RECORD).exists():
        global_batch = config.per_device_train_batch_size * config.gradient_accumulation_steps * processes
        record = RunRecord(arguments={}, datasets={}, base="", global_batch=global_batch)
        (output / RECORD).write_bytes(to_json(record))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TUNEGATE_CACHE", str(output.parent / "cache"))
        prepared = prepare(config, Path(config.model_name_or_path), rejects=output / "rejected.jsonl")
    return plan_of(config, prepared.folders, base)


def train_alone(config: TrainConfig, base: BaseModel | None = None) -> Any:
    """Run `config`, which names no store and a base in a folder. Returns the trained model."""
    made: list[Any] = []

    def load_model(*arguments: Any) -> Any:
        made.append(trainer_load_model(*arguments))
        return made[-1]

    trainer_load_model = trainer.load_model
    plan = prepared_plan(config, 1, base)
    with world_of_one() as patch:
        patch.setattr(trainer, "load_model", load_model)
        trainer.run(plan, Path(config.output_dir))
    return made[-1]


def train_here(
    config: TrainConfig, report: Report | None = None, stop: StopRequest | None = None
) -> list[ModelVersion]:
    """What `tunegate.training.train` does, with its one rank in this process instead of under torchrun."""
    output = Path(config.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    plan = begin(config, output, 1, report).plan
    with world_of_one():
        trainer.run(plan, output, stop, report)
    return finish(plan, output)


def train_in_two(forks: Forks, *configs: TrainConfig, **variables: str) -> None:
    """Run `configs` one after the other, each in two processes."""
    for config in configs:
        ranks = start_two(forks, config, **variables)
        assert ranks.wait() == [0, 0], ranks.log.read_text()[-20000:]


def start_two(forks: Forks, config: TrainConfig, **variables: str) -> Ranks:
    path = Path(config.output_dir, "plan.json")
    plan = prepared_plan(config, 2)
    path.write_bytes(to_json(plan))
    return forks.start(path, 2, **variables)


@contextmanager
def world_of_one() -> Iterator[pytest.MonkeyPatch]:
    """The processes' group stays when a run ends: DeepSpeed keeps parts of the first one for as long as it lives."""
    before = dict(os.environ)
    place = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    os.environ.update({**place, "MASTER_PORT": str(free_port()), "GLOO_SOCKET_IFNAME": "lo", "HF_HUB_OFFLINE": "1"})
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.distributed, "destroy_process_group", lambda: None)
            yield patch
    finally:
        unset_hf_deepspeed_config()
        os.environ.clear()
        os.environ.update(before)
