"""What all ranks of a run agree upon about its folder: where they resume from, and that a checkpoint is there."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tunegate.api.errors import TrainingError
from tunegate.training.loop.universal import convert, processes_of
from tunegate.training.run.checkpoints import complete_checkpoints, remove_incomplete
from tunegate.training.run.layout import shared_path, universal_path
from tunegate.training.run.plan import Plan, for_processes, read_record, with_global_batch_of
from tunegate.training.run.progress import cut_log

_SHARED_SECONDS = 30.0  # network file systems remember for some seconds that a file is not there


@dataclass(frozen=True)
class Start:
    """The folder that the trainer resumes from, None at the beginning; a universal one is removed once it is read."""

    folder: Path | None = None
    is_universal: bool = False


def for_ranks(plan: Plan, output_dir: Path, processes: int) -> Plan:
    """The plan for so many processes, with the global batch size that the run began with.

    torchrun may have restarted fewer ranks, or more, so who planned can't know. Raises UsageError when they can't
    share a step, TrainingError when this node doesn't see the run's folder.
    """
    record = read_record(output_dir)
    if record is None:
        raise _not_shared(output_dir)
    return for_processes(with_global_batch_of(plan, record), processes)


def agree_on_start(output_dir: Path, *, is_first: bool) -> Start:
    """Where all ranks resume from: the newest complete checkpoint, once what a broken attempt left is cleared away.

    torchrun may have restarted the ranks after it lost a node, so a plan can't know. A checkpoint of another number
    of processes is converted by the first, which may take minutes: the others wait for a file, because a collective
    has a watchdog. Raises TrainingError when the nodes don't see the same folder: each would keep a part of every
    checkpoint that no other can read.
    """
    token = [secrets.token_hex(8) if is_first else ""]
    torch.distributed.broadcast_object_list(token)
    mark = shared_path(output_dir, token[0])
    if is_first:
        remove_incomplete(output_dir)
        for stale in output_dir.glob(universal_path(output_dir, "*").name):
            shutil.rmtree(stale)
        mark.touch()
    torch.distributed.barrier()
    if not _appears(mark, _SHARED_SECONDS):
        raise _not_shared(output_dir)
    newest = next(reversed(complete_checkpoints(output_dir)), None)
    start = Start(newest.resume if newest else None)
    if start.folder and processes_of(start.folder) not in (None, torch.distributed.get_world_size()):
        universal = universal_path(output_dir, token[0])
        if is_first:
            convert(start.folder, universal)
        _appears(universal)
        start = Start(universal, is_universal=True)
    torch.distributed.barrier()
    if is_first:
        mark.unlink()
        cut_log(output_dir, newest.step if newest else 0)
    return start


def agree_on_files(checkpoint: Path, *, is_first: bool) -> None:
    """Return when all ranks have written their part of a checkpoint, and the first one sees every file of it.

    Network file systems show what another node wrote some seconds later, and a checkpoint that was sealed without it
    would pass for complete. Raises TrainingError in the first when it is not there by then.
    """
    torch.distributed.barrier()
    seen: list[dict[str, int]] = [{}] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(seen, _sizes(checkpoint))
    if is_first:
        await_files(checkpoint, seen, _SHARED_SECONDS)


def await_files(checkpoint: Path, seen: Sequence[Mapping[str, int]], seconds: float) -> None:
    """Wait for every file that any rank has `seen`, as large as who saw most of it. Raises TrainingError."""
    deadline = time.monotonic() + seconds
    while True:
        here = _sizes(checkpoint)
        if all(here.get(name, -1) >= size for sizes in seen for name, size in sizes.items()):
            return
        if time.monotonic() > deadline:
            raise _not_shared(checkpoint.parent)
        time.sleep(0.5)


def _sizes(checkpoint: Path) -> dict[str, int]:
    files = (path for path in checkpoint.rglob("*") if path.is_file())
    return {path.relative_to(checkpoint).as_posix(): path.stat().st_size for path in files}


def _appears(path: Path, seconds: float = float("inf")) -> bool:
    """Wait for `path`. A launcher ends those that wait when the one that works has failed."""
    deadline = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True


def _not_shared(output_dir: Path) -> TrainingError:
    return TrainingError(
        f"{output_dir} is not the same folder on all nodes; mount one ReadWriteMany volume there on each."
    )
