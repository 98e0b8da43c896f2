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
from tunegate.training.loop.folders import SHARED_SECONDS, appears
from tunegate.training.loop.universal import convert, processes_of
from tunegate.training.run.checkpoints import complete_checkpoints, remove_incomplete
from tunegate.training.run.layout import NODE_LOCAL, universal_path
from tunegate.training.run.plan import Plan, RunRecord, for_processes, with_global_batch_of
from tunegate.training.run.progress import cut_log


@dataclass(frozen=True)
class Start:
    """The folder that the trainer resumes from, None at the beginning; a universal one is removed once it is read."""

    folder: Path | None = None
    is_universal: bool = False


def for_ranks(plan: Plan, record: RunRecord, processes: int) -> Plan:
    """The plan for so many processes, with the global batch size that the run began with.

    torchrun may have restarted fewer ranks, or more, so who planned can't know. Raises UsageError when they can't
    share a step.
    """
    return for_processes(with_global_batch_of(plan, record), processes)


def agree_on_start(output_dir: Path, *, is_first: bool) -> Start:
    """Where all ranks resume from: the newest complete checkpoint, once what a broken attempt left is cleared away.

    torchrun may have restarted the ranks after it lost a node, so a plan can't know. A checkpoint of another number
    of processes is converted by the first, which may take minutes: the others wait for a file, because a collective
    has a watchdog.
    """
    if is_first:
        clear(output_dir)
        (output_dir / NODE_LOCAL).unlink(missing_ok=True)
    newest = [next(reversed(complete_checkpoints(output_dir)), None)]
    torch.distributed.broadcast_object_list(newest)
    start = start_from(newest[0].resume if newest[0] else None, output_dir, converts=is_first)
    torch.distributed.barrier()
    if is_first:
        cut_log(output_dir, newest[0].step if newest[0] else 0)
    return start


def clear(output_dir: Path) -> None:
    """Remove what a broken attempt left in a folder of the run."""
    remove_incomplete(output_dir)
    for stale in output_dir.glob(universal_path(output_dir, "*").name):
        shutil.rmtree(stale)


def start_from(resume: Path | None, output_dir: Path, *, converts: bool) -> Start:
    """The start from a checkpoint; one of another number of processes is converted by the rank that `converts`, and
    waited for by the others that have this folder. Called in every rank at once."""
    token = [secrets.token_hex(8)]
    torch.distributed.broadcast_object_list(token)
    if resume is None or processes_of(resume) in (None, torch.distributed.get_world_size()):
        return Start(resume)
    universal = universal_path(output_dir, token[0])
    if converts:
        convert(resume, universal)
    appears(universal)
    return Start(universal, is_universal=True)


def agree_on_files(checkpoint: Path, *, is_first: bool) -> None:
    """Return when all ranks have written their part of a checkpoint, and the first one sees every file of it.

    Network file systems show what another node wrote some seconds later, and a checkpoint that was sealed without it
    would pass for complete. Raises TrainingError in the first when it is not there by then.
    """
    torch.distributed.barrier()
    seen: list[dict[str, int]] = [{}] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(seen, _sizes(checkpoint))
    if is_first:
        await_files(checkpoint, seen, SHARED_SECONDS)


def await_files(checkpoint: Path, seen: Sequence[Mapping[str, int]], seconds: float) -> None:
    """Wait for every file that any rank has `seen`, as large as who saw most of it. Raises TrainingError."""
    deadline = time.monotonic() + seconds
    while True:
        here = _sizes(checkpoint)
        if all(here.get(name, -1) >= size for sizes in seen for name, size in sizes.items()):
            return
        if time.monotonic() > deadline:
            raise TrainingError(
                f"{checkpoint.parent} does not show within {SHARED_SECONDS:.0f} s what other nodes write there; mount "
                "a ReadWriteMany volume that does, or give each node a folder of its own."
            )
        time.sleep(0.5)


def _sizes(checkpoint: Path) -> dict[str, int]:
    files = (path for path in checkpoint.rglob("*") if path.is_file())
    return {path.relative_to(checkpoint).as_posix(): path.stat().st_size for path in files}
