"""The log of a run: one JSON line for each logging step.

The file and its keys are those of LLaMA-Factory, with ours after them, so that what draws its curves draws ours.
Rank 0 writes it; a resumed run appends to the same file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from tunegate.api.codec import Resource, from_json, to_json_lines
from tunegate.api.versions import ModelVersion
from tunegate.training.data.prepare import Preparing
from tunegate.training.run.layout import LOG

T = TypeVar("T", bound=Resource)


class Progress(Resource, frozen=True, kw_only=True, rename=None, omit_defaults=True):
    """One logging step, or one evaluation of the validation split; what is None has no place in the line.

    rewards_...: of pairs since the last logging step, in nats, and the share in which the chosen answer has the higher.

    loss: mean over the trained tokens since the last logging step.
    eval_loss: mean over the trained tokens that were held out.
    grad_norm: length of the gradient at the last step, before it was clipped.
    elapsed_time, remaining_time: of the steps, without start-up, as h:mm:ss.
    tokens_per_second: tokens read, without padding, by all ranks since the last logging step (rank 0's, times ranks).
    padding: share of the positions computed since the last logging step that were padding, 0..1.
    planned_memory_bytes: what `tunegate plan` reckons that a process takes at its peak, of its longest row.
    gpu_memory_bytes, process_memory_bytes: what the first process has taken so far at its peak, one of the two: of its
    GPU, as PyTorch gave it out; without one of the machine, beyond what it had before the model.
    mfu: share of the devices' arithmetic that the model's own work took since the last logging step, 0..1.
    """

    current_steps: int
    total_steps: int
    loss: float | None = None
    eval_loss: float | None = None
    lr: float | None = None
    grad_norm: float | None = None
    epoch: float
    percentage: float
    elapsed_time: str
    remaining_time: str
    tokens_per_second: float | None = None
    padding: float | None = None
    mfu: float | None = None
    planned_memory_bytes: int | None = None
    gpu_memory_bytes: int | None = None
    process_memory_bytes: int | None = None
    rewards_chosen: float | None = msgspec.field(default=None, name="rewards/chosen")
    rewards_rejected: float | None = msgspec.field(default=None, name="rewards/rejected")
    rewards_accuracies: float | None = msgspec.field(default=None, name="rewards/accuracies")
    rewards_margins: float | None = msgspec.field(default=None, name="rewards/margins")
    eval_rewards_accuracies: float | None = msgspec.field(default=None, name="eval_rewards/accuracies")


class Uploading(Resource, frozen=True, kw_only=True):
    """The last step is done, and these checkpoints are not yet whole in the store."""

    checkpoints: tuple[str, ...]
    size: int
    """In bytes, of which some may be there."""

    def __str__(self) -> str:
        return f"training is done; {self.size / 2**20:.0f} MiB still go to the store: {', '.join(self.checkpoints)}"


Report = Callable[[Preparing | Progress | Uploading | ModelVersion], None]


def clock(seconds: float) -> str:
    """`seconds` as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def append(path: Path, value: Resource) -> None:
    """Add `value` as one line."""
    with path.open("ab") as stream:
        stream.write(msgspec.json.encode(value) + b"\n")


def read_log(output_dir: Path) -> list[Progress]:
    """Every logging step of the run so far."""
    path = output_dir / LOG
    return list(Follower(path, Progress).new()) if path.is_file() else []


def cut_log(output_dir: Path, step: int) -> None:
    """Forget what was logged after `step`: the run is about to compute it again."""
    kept = [progress for progress in read_log(output_dir) if progress.current_steps <= step]
    (output_dir / LOG).write_bytes(to_json_lines(kept))


class Follower(Generic[T]):
    """Reads the lines that were added to a file since the last look."""

    def __init__(self, path: Path, kind: type[T], *, from_end: bool = False) -> None:
        self._path = path
        self._kind = kind
        self._offset = path.stat().st_size if from_end and path.is_file() else 0

    def new(self) -> Iterator[T]:
        if not self._path.is_file():
            return
        with self._path.open("rb") as stream:
            self._offset = min(self._offset, self._path.stat().st_size)  # cut for steps that are computed again
            stream.seek(self._offset)
            whole, newline, _ = stream.read().rpartition(b"\n")
        self._offset += len(whole) + len(newline)
        for line in whole.splitlines():
            yield from_json(line, self._kind, str(self._path))
