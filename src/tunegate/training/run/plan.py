"""What a run will do, decided before a process is started: base, data, provenance, and where it goes on from.

The plan is a file, so the processes of the run read what was checked here. Knows no torch.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import msgspec

import tunegate
from tunegate.api.codec import Resource, from_json, from_yaml, to_json
from tunegate.api.errors import UsageError
from tunegate.api.versions import (
    RELEASE,
    BaseModel,
    Dataset,
    File,
    Format,
    Producer,
    Release,
    digest_of,
)
from tunegate.files import digest_of_file
from tunegate.models.materialize import default_cache
from tunegate.store import Store
from tunegate.training.config import TrainConfig, arguments_of, check_global_batch
from tunegate.training.data.prepare import Report, prepare
from tunegate.training.run.base_model import base_folder
from tunegate.training.run.layout import RECORD, REJECTED

_GLOBAL_BATCH = "globalBatch"
_ADAPTERS: dict[str, Format] = {"lora": "lora-adapter", "p_tuning": "prompt-adapter", "p_tuning_v2": "prompt-adapter"}


class RunRecord(Resource, frozen=True, kw_only=True):
    """What makes two starts the same run: the settings, the bytes of the data and those of the base model.

    global_batch: dialogues to a step. They stay when fewer or more processes go on; how many those are is no part.
    """

    arguments: dict[str, Any]
    datasets: dict[str, str]
    base: str
    global_batch: int


class Plan(Resource, frozen=True, kw_only=True):
    """Everything a training process needs; where it goes on from, the run's folder says."""

    config: TrainConfig
    base_folder: str
    tokens: tuple[str, ...]
    release: Release
    producer: Producer


def make_plan(
    config: TrainConfig, store: Store | None, output_dir: Path, processes: int, report: Report | None = None
) -> Plan:
    """Find the base model, tokenize the data, and put both into words; `processes` are all that train.

    Raises UsageError, DataError, ModelError or StoreError for what can't be used.
    """
    folder, base, digest = _find_base(config, store)
    prepared = prepare(config, folder, report, rejects=output_dir / REJECTED)
    inherited = _release_beside(folder)
    release = Release(
        format=_ADAPTERS.get(config.finetuning_type, "huggingface"),
        base=base,
        system_prompt=inherited.system_prompt if inherited else "",
        generation=inherited.generation if inherited else {},
    )
    producer = Producer(
        kind="tunegate train",
        run=config.run,
        arguments=arguments_of(config),
        seed=config.seed,
        code_version=code_version(),
        datasets=tuple(Dataset(name=one.name, digest=one.digest, rows=one.examples) for one in prepared.datasets),
        notes={"base": digest, _GLOBAL_BATCH: str(_global_batch(config, processes))},
    )
    return Plan(
        config=config,
        base_folder=str(folder),
        tokens=tuple(map(str, prepared.folders)),
        release=release,
        producer=producer,
    )


def record_of(producer: Producer) -> RunRecord:
    datasets = {dataset.name: dataset.digest for dataset in producer.datasets}
    return RunRecord(
        arguments=producer.arguments,
        datasets=datasets,
        base=producer.notes.get("base", ""),
        global_batch=int(producer.notes.get(_GLOBAL_BATCH, 0)),
    )


def read_record(output_dir: Path) -> RunRecord | None:
    path = output_dir / RECORD
    return from_json(path.read_bytes(), RunRecord, str(path)) if path.is_file() else None


def check_same_run(plan: Plan, output_dir: Path, begun: RunRecord | None) -> Plan:
    """The plan with the dialogues to a step that the run began with; `output_dir` gets its record.

    begun: what an earlier attempt recorded, None where there was none.
    Raises UsageError when the run began with something else.
    """
    wanted = record_of(plan.producer)
    if begun is not None and (changes := _changes(begun, wanted)):
        raise UsageError(
            f"The run {plan.config.run} began with {changes}; start it as it began, "
            "or give a new --run and --output_dir."
        )
    record = begun or wanted
    check_global_batch(plan.config, record.global_batch // _global_batch(plan.config, 1))
    (output_dir / RECORD).write_bytes(to_json(record))
    return as_begun(plan, record)


def as_begun(plan: Plan, record: RunRecord) -> Plan:
    """The plan with the dialogues to a step that the run began with, whatever this start would make of its flags."""
    notes = {**plan.producer.notes, _GLOBAL_BATCH: str(record.global_batch)}
    return msgspec.structs.replace(plan, producer=msgspec.structs.replace(plan.producer, notes=notes))


def for_processes(plan: Plan, processes: int) -> Plan:
    """The plan with as many batches to a step as so many processes need for its dialogues to a step.

    Raises UsageError when they can't share them.
    """
    batch, global_batch = plan.config.per_device_train_batch_size, record_of(plan.producer).global_batch
    config = msgspec.structs.replace(
        plan.config, gradient_accumulation_steps=accumulation(global_batch, batch, processes)
    )
    return msgspec.structs.replace(plan, config=config)


def accumulation(global_batch: int, batch: int, processes: int) -> int:
    """How many batches each process adds up to a step. Raises UsageError when they don't come out even."""
    batches, rest = divmod(global_batch, batch * processes)
    if rest:
        shares = global_batch // batch
        *fewer, most = [str(count) for count in range(1, shares + 1) if shares % count == 0]
        raise UsageError(
            f"A step of this run is {global_batch} dialogues, {batch} at a time, and {processes} processes can't share "
            f"them evenly; start {', '.join(fewer)}{' or ' if fewer else ''}{most}."
        )
    return batches


def code_version() -> str:
    """tunegate's version, with the commit when it runs from a source checkout."""
    root = Path(tunegate.__file__).parents[2]
    if not (root / ".git").exists():
        return tunegate.__version__
    described = subprocess.run(
        ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"], capture_output=True, text=True
    )
    return f"{tunegate.__version__}+{described.stdout.strip()}" if described.returncode == 0 else tunegate.__version__


def open_store(config: TrainConfig) -> Store | None:
    return Store.open(config.store, endpoint_url=config.endpoint_url) if config.store else None


def _find_base(config: TrainConfig, store: Store | None) -> tuple[Path, BaseModel | None, str]:
    """The folder to train from, what adapters and tuned weights name as their base, and its digest."""
    folder, version = base_folder(config, store)
    if version is not None:
        return folder, BaseModel(uri=version.uri, digest=version.digest), version.digest
    if store is not None and config.finetuning_type in _ADAPTERS:
        raise UsageError(
            f"An adapter needs its base model in the store, and {config.model_name_or_path} is a folder; publish it "
            "with `tunegate models publish` and give the version's name, or use --finetuning_type full."
        )
    return folder, None, _digest_of_folder(folder)


def _digest_of_folder(folder: Path) -> str:
    digests = default_cache() / "digests"
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return digest_of(
        File(
            path=path.relative_to(folder).as_posix(),
            size=path.stat().st_size,
            sha256=digest_of_file(path, cache=digests),
        )
        for path in paths
    )


def _release_beside(folder: Path) -> Release | None:
    path = folder / RELEASE
    return from_yaml(path.read_bytes(), Release, str(path)) if path.is_file() else None


def _global_batch(config: TrainConfig, processes: int) -> int:
    return config.per_device_train_batch_size * config.gradient_accumulation_steps * processes


def _changes(begun: RunRecord, wanted: RunRecord) -> str:
    """What differs, in words; empty when nothing does."""
    said = [
        f"--{name} {begun.arguments.get(name)}, not {value}"
        for name, value in wanted.arguments.items()
        if begun.arguments.get(name) != value
    ]
    said += [
        f"other bytes in the data set {name}"
        for name, digest in wanted.datasets.items()
        if name in begun.datasets and begun.datasets[name] != digest
    ]
    if begun.base != wanted.base:
        said.append(f"the base model {begun.base}, not {wanted.base}")
    return ", ".join(said)


def threads_per_process(processes: int) -> int:
    return max(1, (os.cpu_count() or 1) // processes)
