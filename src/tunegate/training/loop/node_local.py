"""What ranks agree upon where each node has a folder of its own, and the store is all that nodes share.

A checkpoint is in parts there: each node has what its own ranks wrote. A run resumes from the newest one of which every
rank finds its part, or from the newest version in the store, which each node fetches as a whole.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence, Set
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from tunegate.api.codec import to_json, to_json_lines
from tunegate.api.errors import UnavailableError
from tunegate.api.versions import ModelVersion
from tunegate.files import replace_file
from tunegate.store import Store
from tunegate.training.loop.folders import Folders
from tunegate.training.loop.resume import Start, clear, start_from
from tunegate.training.run.checkpoints import (
    Checkpoint,
    Part,
    arrange,
    check_owner,
    complete_checkpoints,
    fetch_checkpoint,
    remove_checkpoint,
    step_of,
    versions_of,
)
from tunegate.training.run.layout import LOG, NODE_LOCAL, RECORD, RESUME, check_checkpoints
from tunegate.training.run.plan import Plan, RunRecord
from tunegate.training.run.progress import Progress, cut_log, read_log
from tunegate.training.run.stored_log import bring_log

_LOG = logging.getLogger(__name__)
_LONGEST_FETCH = timedelta(days=1)
_Parts = Set[tuple[int, str]]  # steps, and the names of the checkpoints that were written there


@dataclass(frozen=True)
class _Found:
    """What a rank finds in its folder: checkpoints of which it has its part, and the run's log."""

    parts: _Parts
    log: Sequence[Progress]


@dataclass(frozen=True)
class _Written:
    """What a rank has to say of a checkpoint: the files in the folder that it leads, and the checkpoints before it."""

    files: Sequence[str]
    before: Sequence[str]
    name: str


def agree_on_start_node_local(plan: Plan, record: RunRecord, output_dir: Path, folders: Folders) -> Start:
    """As `agree_on_start`. Raises StoreError, or UsageError where a node's folder is another run's."""
    # Fetching may take longer than a collective of the ranks' own group waits.
    patient = torch.distributed.new_group(backend="gloo", timeout=_LONGEST_FETCH)
    if folders.leads:
        _take(output_dir, record, is_first=folders.rank == 0)
    torch.distributed.barrier(group=patient)
    found: list[Any] = [None] * len(folders.owners)
    mine = _Found(_parts_of(output_dir, folders), read_log(output_dir) if folders.leads else ())
    torch.distributed.all_gather_object(found, mine, group=patient)
    common: _Parts = frozenset.intersection(*(one.parts for one in found))
    published = [_newest(plan, is_needed=not common) if folders.rank == 0 else None]
    torch.distributed.broadcast_object_list(published, group=patient)
    step = max((step for step, _ in common), default=0)
    if published[0] and step_of(published[0]) > step:
        step = step_of(published[0])
        if folders.leads:
            _fetch(plan, published[0], output_dir)
    if folders.leads:
        _remove_useless(output_dir, step, common)
    if folders.rank == 0:
        _restore_log(plan, output_dir, [one.log for one in found], step)
    torch.distributed.barrier(group=patient)
    resume = output_dir / f"checkpoint-{step}" / RESUME if step else None
    start = start_from(resume, output_dir, converts=folders.leads)
    torch.distributed.barrier(group=patient)
    return start


def agree_on_part(checkpoint: Path, folders: Folders) -> Part | None:
    """What this node has of a checkpoint that every rank has written; None where another rank leads the folder.

    Checkpoints that the first node keeps no longer are removed here, too.
    """
    torch.distributed.barrier()
    files: Sequence[str] = ()
    if folders.leads:
        tag = next(checkpoint.glob("global_step*")).name
        (checkpoint / "latest").write_text(tag)  # by which DeepSpeed finds it, and which only the first rank writes
        files = tuple(arrange(checkpoint))
    before = complete_checkpoints(checkpoint.parent) if folders.leads else []
    written: list[Any] = [None] * len(folders.owners)
    mine = _Written(files, [one.folder.name for one in before], secrets.token_hex(8))
    torch.distributed.all_gather_object(written, mine)
    if not folders.leads:
        return None
    for one in before:
        if one.folder.name not in written[0].before:
            remove_checkpoint(one)
    there = {file for each in written[: folders.rank] for file in each.files}
    sent = tuple(sorted(file for file in files if file not in there))
    return Part(of=written[0].name, processes=len(folders.owners), sent=sent)


def _take(output_dir: Path, record: RunRecord, *, is_first: bool) -> None:
    """Make a node's folder one of the run. Raises UsageError when it has checkpoints of another."""
    check_checkpoints(output_dir)
    check_owner(output_dir, record.identity)
    clear(output_dir)
    if is_first:
        (output_dir / NODE_LOCAL).unlink(missing_ok=True)
    else:
        (output_dir / NODE_LOCAL).touch()
    replace_file(output_dir / RECORD, to_json(record))


def _parts_of(output_dir: Path, folders: Folders) -> _Parts:
    """The checkpoints that as many processes wrote as there are, with a part that is this rank's."""
    size = len(folders.owners)
    own = f"rng_state_{folders.rank}.pth"
    found = complete_checkpoints(output_dir)
    parts = ((one, one.marker.part) for one in found if (one.resume / own).is_file())
    return frozenset((one.step, part.of) for one, part in parts if part and part.processes == size)


def _newest(plan: Plan, *, is_needed: bool) -> ModelVersion | None:
    """The run's newest version. A store that is away stops only a run that has nothing else to resume from."""
    config = plan.config
    try:
        return next(reversed(versions_of(_store(plan), config.model, config.run)), None)
    except UnavailableError as error:
        if is_needed:
            raise
        _LOG.warning("the run resumes without having asked the store", extra={"error": str(error)})
        return None


def _fetch(plan: Plan, version: ModelVersion, output_dir: Path) -> Checkpoint:
    """Bring a version, and take over what is here of it."""
    store, folder = _store(plan), output_dir / version.name.rsplit("/", 1)[1]
    files = {file.path for file in store.manifest(version.name).files}
    for one in complete_checkpoints(output_dir):
        if one.folder == folder and not one.marker.files.keys() <= files:  # as another number of processes wrote it
            remove_checkpoint(one)
    return fetch_checkpoint(store, version, output_dir)


def _remove_useless(output_dir: Path, step: int, common: _Parts) -> None:
    """Remove what comes after `step`, which is computed again, and parts without the others of their checkpoint."""
    for one in complete_checkpoints(output_dir):
        if one.step > step or (one.marker.part and (one.step, one.marker.part.of) not in common):
            _LOG.info("a part of a checkpoint has no use any more", extra={"checkpoint": one.folder.name})
            remove_checkpoint(one)


def _restore_log(plan: Plan, output_dir: Path, logs: Sequence[Sequence[Progress]], step: int) -> None:
    """Bring the run's log up to `step` to the first rank, which may have been on another node before."""
    longest = max(logs, key=lambda log: log[-1].current_steps if log else 0)
    replace_file(output_dir / LOG, to_json_lines(longest))
    if step and (not longest or longest[-1].current_steps < step):
        (output_dir / LOG).unlink()
        bring_log(_store(plan), plan.config.model, plan.config.run, output_dir)
    cut_log(output_dir, step)


def _store(plan: Plan) -> Store:
    assert plan.config.store is not None
    return Store.at(plan.config.store, endpoint_url=plan.config.endpoint_url)
