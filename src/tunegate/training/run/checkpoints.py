"""Checkpoints of a run: which of them are complete, which is the newest, and how they reach the store.

A checkpoint folder holds what is served (weights or adapter, tokenizer, chat template) and, under resume/, what it
takes to resume exactly. A marker inside resume/ says that it is this product's from the beginning, and, renamed last,
that it is complete. A folder without one is another trainer's, and left alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import msgspec

from tunegate.api.codec import Document, Resource, from_json, to_json
from tunegate.api.errors import TrainingError, UnavailableError, UsageError
from tunegate.api.versions import Cost, File, ModelVersion, Producer, Release, Training
from tunegate.files import replace_file
from tunegate.models.weights import check_part, check_weights
from tunegate.store import Store
from tunegate.training.run.layout import (
    CHECKPOINTS,
    MARKER,
    PICTURE,
    RESUME,
    UNFINISHED,
    cost_path,
    is_ours,
    partial_path,
)

_NOT_KEPT = {"README.md", "training_args.bin", "zero_to_fp32.py", "zero_to_torch.py"}
_SERVED = (  # how their names begin
    *("adapter_config.json", "adapter_model.safetensors", "chat_template.jinja", "config.json"),
    *("generation_config.json", "model", "tokenizer", "special_tokens", "vocab", "merges", PICTURE),
)


class Part(Resource, frozen=True, kw_only=True):
    """What a node has of a checkpoint, where each has a folder of its own and nobody has all.

    of: names the checkpoint, alike on all nodes. processes: how many wrote it. sent: the files that this node sends to
    the store; of the others here the first node has its own.
    """

    of: str
    processes: int
    sent: tuple[str, ...] = ()


class Marker(Document, frozen=True, kw_only=True):
    """Says that a checkpoint is complete: every file of it with its size in bytes, and where in the run it stands.

    run: the identity of its run; tunegate 0.1.0 named none. part: None where the files are all there are.
    """

    added: ClassVar[tuple[str, ...]] = ("part",)

    step: int
    total_steps: int
    epoch: float
    loss: float | None
    files: dict[str, int]
    run: str = ""
    part: Part | None = None


@dataclass(frozen=True)
class Checkpoint:
    folder: Path
    marker: Marker

    @property
    def step(self) -> int:
        return self.marker.step

    @property
    def cost(self) -> Cost:
        """What training took to come this far, for the version it becomes; empty where that was not kept."""
        path = cost_path(self.folder)
        return from_json(path.read_bytes(), Cost, str(path)) if path.is_file() else Cost()

    @property
    def is_last(self) -> bool:
        return self.marker.step >= self.marker.total_steps

    @property
    def resume(self) -> Path:
        """The folder that the trainer resumes from."""
        return self.folder / RESUME


@dataclass(frozen=True)
class Share:
    """The part of every checkpoint that a node sends to the store: that of node `index` of so many."""

    index: int
    count: int


def begin_checkpoint(output_dir: Path, step: int) -> Path:
    """Make the folder that a checkpoint is written to, marked as ours in the moment in which it appears.

    Raises TrainingError when something is there that the run did not write.
    """
    folder = output_dir / f"checkpoint-{step}"
    partial = partial_path(folder)
    (partial / RESUME).mkdir(parents=True, exist_ok=True)
    (partial / RESUME / UNFINISHED).touch()
    try:
        partial.rename(folder)
    except OSError:
        raise TrainingError(f"{folder} has what this run did not write; give a new --output_dir.") from None
    return folder


def seal(
    folder: Path,
    *,
    step: int,
    total_steps: int,
    epoch: float,
    loss: float | None,
    cost: Cost | None = None,
    run: str = "",
    part: Part | None = None,
) -> Checkpoint:
    """Bring a checkpoint that every rank has finished writing into its final layout, and mark it complete."""
    files = arrange(folder)
    if cost:
        replace_file(cost_path(folder), to_json(cost))
    unfinished = folder / RESUME / UNFINISHED
    marker = Marker(step=step, total_steps=total_steps, epoch=epoch, loss=loss, files=files, run=run, part=part)
    replace_file(unfinished, to_json(marker))
    unfinished.rename(folder / RESUME / MARKER)
    return Checkpoint(folder, marker)


def arrange(folder: Path) -> dict[str, int]:
    """Bring what was written of a checkpoint into its final layout. Returns its files with their sizes in bytes."""
    resume = folder / RESUME
    for path in list(folder.iterdir()):
        if path.name in _NOT_KEPT:
            path.unlink()
        elif path != resume and not path.name.startswith(_SERVED):
            path.rename(resume / path.name)
    written = (path for path in folder.rglob("*") if path.is_file() and path != resume / UNFINISHED)
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in written}


def complete_checkpoint(folder: Path) -> Checkpoint | None:
    """The checkpoint in `folder`, or None when it has no marker or a file differs from it in size."""
    marker = _read_marker(folder)
    if marker is None:
        return None
    try:
        is_whole = all((folder / name).stat().st_size == size for name, size in marker.files.items())
    except FileNotFoundError:
        return None
    return Checkpoint(folder, marker) if is_whole else None


def complete_checkpoints(output_dir: Path) -> list[Checkpoint]:
    """The complete checkpoints, oldest first."""
    found = [complete_checkpoint(folder) for folder in output_dir.glob(CHECKPOINTS)]
    return sorted((checkpoint for checkpoint in found if checkpoint), key=lambda checkpoint: checkpoint.step)


def check_owner(output_dir: Path, run: str) -> None:
    """Raise UsageError when a checkpoint in `output_dir`, whole or damaged, is of another run than `run`.

    One that names no run passes for its own.
    """
    for folder in sorted(output_dir.glob(CHECKPOINTS)):
        marker = _read_marker(folder)
        if marker and marker.run not in ("", run):
            raise UsageError(
                f"{folder} is of another run of tunegate, with other settings, data or base model; it is neither "
                "resumed from nor removed: give a new --output_dir, or move it away."
            )


def versions_of(store: Store, model: str, run: str) -> list[ModelVersion]:
    """The run's versions in the order of their steps."""
    return sorted((version for version in store.list(model) if version.run == run), key=step_of)


def step_of(version: ModelVersion) -> int:
    return int(version.name.rsplit("-", 1)[1])


def unpublished(store: Store, model: str, run: str, output_dir: Path) -> list[Checkpoint]:
    """The complete checkpoints of a run that are not in the store yet, oldest first, if this node has all of them."""
    known = {version.name for version in store.list(model)}
    found = [checkpoint for checkpoint in complete_checkpoints(output_dir) if not checkpoint.marker.part]
    return [checkpoint for checkpoint in found if f"{model}/{run}/{checkpoint.folder.name}" not in known]


def remove_incomplete(output_dir: Path) -> None:
    """Remove what a killed run left half-written or half-removed, and nothing that it did not write."""
    for folder in output_dir.glob(CHECKPOINTS):
        if is_ours(folder) and complete_checkpoint(folder) is None:
            _remove(folder)
    for partial in output_dir.glob(partial_path(output_dir / CHECKPOINTS).name):
        shutil.rmtree(partial)


def remove_surplus(checkpoints: Sequence[Checkpoint], keep: int | None) -> None:
    """Remove all but the newest `keep` of `checkpoints`, which come oldest first; None keeps all."""
    for checkpoint in checkpoints[:-keep] if keep else ():
        remove_checkpoint(checkpoint)


def remove_checkpoint(checkpoint: Checkpoint) -> None:
    _remove(checkpoint.folder)


def fetch_checkpoint(store: Store, version: ModelVersion, output_dir: Path) -> Checkpoint:
    """Bring a published checkpoint back with its resume state. Raises TrainingError when it has none."""
    folder = output_dir / version.name.rsplit("/", 1)[1]
    checkpoint = complete_checkpoint(store.fetch(version.uri, folder, digest=version.digest, include_resume=True))
    if checkpoint is None:
        raise TrainingError(f"{version.name} was published without what it takes to resume; give a new --run.")
    training = store.manifest(version.name).producer.training
    if training:
        replace_file(cost_path(folder), to_json(training.cost))
    return checkpoint


def send_share(store: Store, checkpoint: Checkpoint, name: str, release: Release, share: Share) -> None:
    """Send a node's share of what `publish_checkpoint` publishes, which takes it over. Raises StoreError."""
    version = f"{name}/checkpoint-{checkpoint.step}"
    store.send_share(checkpoint.folder, version, release=release, index=share.index, count=share.count)


def send_part(store: Store, checkpoint: Checkpoint, name: str, paths: Iterable[str]) -> tuple[File, ...]:
    """Send a node's own files of a checkpoint that no node has whole. Returns what who publishes is to be told of them.

    Raises ModelError where a weight is NaN or infinite, StoreError.
    """
    check_part(checkpoint.folder)
    version = f"{name}/checkpoint-{checkpoint.step}"
    files = store.send_part(checkpoint.folder, version, paths)
    if files is None:  # a claim of an attempt that was killed, which ends by itself
        raise UnavailableError(f"{version} is being published by another process; it is tried again when that ends.")
    return files


def publish_checkpoint(
    store: Store, checkpoint: Checkpoint, name: str, release: Release, producer: Producer, sent: Sequence[File] = ()
) -> ModelVersion:
    """Publish `checkpoint` as the version `name`/checkpoint-<step>, with where it stands in the run.

    sent: the parts that other nodes have of it, and have sent. Raises ModelError where a weight is NaN or infinite: the
    step after the last loss that was logged may make it so.
    """
    marker, instead = checkpoint.marker, {}
    if marker.part:
        check_part(checkpoint.folder)
        files = {**marker.files, **{file.path: file.size for file in sent}}
        whole = msgspec.structs.replace(marker, part=None, files=dict(sorted(files.items())))
        instead = {f"{RESUME}/{MARKER}": to_json(whole)}
    else:
        check_weights(checkpoint.folder)
    made = msgspec.structs.replace(
        producer,
        step=marker.step,
        epoch=marker.epoch,
        loss=marker.loss,
        training=msgspec.structs.replace(
            producer.training or Training(), total_steps=marker.total_steps, cost=checkpoint.cost
        ),
    )
    version = f"{name}/checkpoint-{marker.step}"
    return store.publish(checkpoint.folder, version, release=release, producer=made, sent=sent, instead=instead)


def _remove(folder: Path) -> None:
    """Out of its place first, so that what is left when this is cut short passes for nothing else."""
    partial = partial_path(folder)
    shutil.rmtree(partial, ignore_errors=True)
    folder.rename(partial)
    cost_path(folder).unlink(missing_ok=True)
    shutil.rmtree(partial)


def _read_marker(folder: Path) -> Marker | None:
    path = folder / RESUME / MARKER
    try:
        return from_json(path.read_bytes(), Marker, str(path))
    except (FileNotFoundError, NotADirectoryError):  # also one that is just being removed
        return None
