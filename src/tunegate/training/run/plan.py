"""What a run will do, decided before a process is started: base, data and provenance.

The plan is a file, so the processes of the run read what was checked here.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import msgspec

import tunegate
from tunegate.api.codec import Resource, from_json, from_yaml, to_json
from tunegate.api.digest import Digest
from tunegate.api.errors import UsageError
from tunegate.api.pinned import base_of
from tunegate.api.versions import RELEASE, Dataset, Format, ModelVersion, Producer, Release, Training
from tunegate.store import Store
from tunegate.training.config import TrainConfig, arguments_of, check_global_batch, local_file
from tunegate.training.data.examples import TrainingData, account_of, open_training_data
from tunegate.training.data.prepare import Report, prepare
from tunegate.training.run.base_model import base_digest, base_folder, check_base
from tunegate.training.run.layout import ACCOUNT, RECORD, REJECTED
from tunegate.training.run.parent import Parent, find_parent

_ADAPTERS: dict[str, Format] = {"lora": "lora-adapter", "p_tuning": "prompt-adapter", "p_tuning_v2": "prompt-adapter"}


class RunRecord(Resource, frozen=True, kw_only=True):
    """What makes two starts the same run: the settings, the bytes of the data and those of the base model.

    global_batch: the global batch size. It stays when fewer or more processes resume; how many those are is no part.
    start: the digest of the version that --resume_from names, empty without one.
    """

    arguments: dict[str, Any]
    datasets: dict[str, str]
    base: str
    global_batch: int
    start: str = ""

    @property
    def identity(self) -> str:
        """Names the run in its checkpoints: by what it computes, with equal training under another name the same.

        Those who publish equal training get equal bytes, so no name and no path is part of it.
        """
        arguments = {name: value for name, value in self.arguments.items() if name not in ("model", "run", "dataset")}
        parts = [arguments, list(self.datasets.values()), self.base, *filter(None, [self.start])]
        return str(Digest.of_bytes(msgspec.json.encode(parts, order="sorted")))


class Plan(Resource, frozen=True, kw_only=True):
    """Everything a training process needs; where it resumes from, the run's folder says.

    adapter_folder: the adapter that --resume_from names, empty without one.
    """

    config: TrainConfig
    base_folder: str
    adapter_folder: str = ""
    tokens: tuple[str, ...]
    release: Release
    producer: Producer


def make_plan(
    config: TrainConfig, store: Store | None, output_dir: Path, processes: int, report: Report | None = None
) -> Plan:
    """Find the base model, tokenize the data, and say how both are used; `processes` are all that train.

    Raises UsageError, DataError, ModelError or StoreError for what can't be used.
    """
    if config.deepspeed and "://" in config.deepspeed:  # fetched once: ranks read the file
        config = msgspec.structs.replace(config, deepspeed=str(local_file(config.deepspeed, config.endpoint_url)))
    folder, version = base_folder(config, store)
    if version is None and store is not None and config.finetuning_type in _ADAPTERS:
        raise UsageError(
            f"An adapter needs its base model in the store, and {config.model_name_or_path} is a folder; publish it "
            "with `tunegate models publish` and give the version's name, or use --finetuning_type full."
        )
    digest = base_digest(folder, version)
    if version is None:  # a version was checked as it was published and fetched, and is by the ranks that load it
        check_base(folder, digest)
    start = find_parent(config, store, digest)
    if start and not start.is_adapter:
        folder, version, digest = start.folder, start.version, start.digest
    prepared = prepare(config, folder, report, rejects=output_dir / REJECTED)
    return Plan(
        config=config,
        base_folder=str(folder),
        adapter_folder=str(start.folder) if start and start.is_adapter else "",
        tokens=tuple(map(str, prepared.folders)),
        release=_release(config, folder, version),
        producer=_producer(config, prepared, digest, start, processes),
    )


def _release(config: TrainConfig, folder: Path, version: ModelVersion | None) -> Release:
    """What is said of the run's versions: as their base's release says it, where its folder has one."""
    inherited = Release(format="huggingface")
    if (folder / RELEASE).is_file():
        inherited = from_yaml((folder / RELEASE).read_bytes(), Release, str(folder / RELEASE))
    return Release(
        format=_ADAPTERS.get(config.finetuning_type, "huggingface"),
        base=base_of(version) if version else None,
        system_prompt=inherited.system_prompt,
        generation=inherited.generation,
    )


def _producer(config: TrainConfig, prepared: TrainingData, base: str, start: Parent | None, processes: int) -> Producer:
    """What the run's versions come of; `record_of` takes from it what makes two starts the same run."""
    return Producer(
        kind="tunegate train",
        run=config.run,
        arguments=arguments_of(config),
        seed=config.seed,
        code_version=code_version(),
        datasets=tuple(Dataset(name=it.name, digest=it.digest, rows=it.examples) for it in prepared.datasets),
        training=Training(
            method=config.finetuning_type,
            base=base,
            global_batch=_global_batch(config, processes),
            resumed_from=start.pinned if start else None,
        ),
    )


def record_of(producer: Producer) -> RunRecord:
    datasets = {dataset.name: dataset.digest for dataset in producer.datasets}
    training = producer.training or Training()
    return RunRecord(
        arguments=producer.arguments,
        datasets=datasets,
        base=training.base,
        global_batch=training.global_batch,
        start=training.resumed_from.digest if training.resumed_from else "",
    )


def read_record(output_dir: Path) -> RunRecord | None:
    path = output_dir / RECORD
    return from_json(path.read_bytes(), RunRecord, str(path)) if path.is_file() else None


def identity_of(output_dir: Path) -> str:
    """The identity of the run whose folder this is; empty where it has no record."""
    record = read_record(output_dir)
    return record.identity if record else ""


def check_same_run(plan: Plan, output_dir: Path, *recorded: RunRecord | None) -> Plan:
    """The plan with the global batch size that the run began with; `output_dir` gets its record and account of rows.

    recorded: what earlier attempts began with, as the run's folder has it and the store, None where there were none.
    Raises UsageError when that was something else.
    """
    wanted, begun = record_of(plan.producer), [record for record in recorded if record]
    for record in begun:
        if changes := _changes(record, wanted):
            raise UsageError(
                f"The run {plan.config.run} began with {', '.join(changes)}; start it as it began, "
                "or give a new --run and --output_dir."
            )
    record = next(iter(begun), wanted)
    check_global_batch(plan.config, record.global_batch // _global_batch(plan.config, 1))
    data = open_training_data(plan.config, [Path(folder) for folder in plan.tokens])
    (output_dir / ACCOUNT).write_bytes(to_json(account_of(data, plan.config)))
    (output_dir / RECORD).write_bytes(to_json(record))
    return with_global_batch_of(plan, record)


def _changes(record: RunRecord, wanted: RunRecord) -> list[str]:
    """In words, where a run that began as `record` says is not the one that is `wanted`."""
    changes = [
        f"--{name} {record.arguments.get(name)}, not {wanted.arguments.get(name)}"
        for name in {**record.arguments, **wanted.arguments}
        if record.arguments.get(name) != wanted.arguments.get(name)
    ]
    changes += [
        f"other bytes in the data set {name}"
        for name, digest in wanted.datasets.items()
        if record.datasets.get(name, digest) != digest
    ]
    if record.base != wanted.base:
        changes.append(f"the base model {record.base}, not {wanted.base}")
    if record.start != wanted.start:
        changes.append(f"--resume_from {record.start or 'left out'}, not {wanted.start or 'left out'}")
    return changes


def with_global_batch_of(plan: Plan, record: RunRecord) -> Plan:
    """The plan with the global batch size that the run began with, whatever this start's flags come to."""
    training = msgspec.structs.replace(plan.producer.training or Training(), global_batch=record.global_batch)
    return msgspec.structs.replace(plan, producer=msgspec.structs.replace(plan.producer, training=training))


def for_processes(plan: Plan, processes: int) -> Plan:
    """The plan with as many batches to a step as so many processes need for its global batch size.

    Raises UsageError when they can't share it.
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
            f"The global batch size of this run is {global_batch}, {batch} dialogues at a time, and {processes} "
            f"processes can't share it evenly; start {', '.join(fewer)}{' or ' if fewer else ''}{most}."
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


def _global_batch(config: TrainConfig, processes: int) -> int:
    return config.per_device_train_batch_size * config.gradient_accumulation_steps * processes


def threads_per_process(processes: int) -> int:
    return max(1, (os.cpu_count() or 1) // processes)
