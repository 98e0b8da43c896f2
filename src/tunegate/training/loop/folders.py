"""Which ranks of a run have the same folder: all of them, or those of each node where nodes have their own."""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch

from tunegate.api.errors import TrainingError
from tunegate.training.run.checkpoints import complete_checkpoints
from tunegate.training.run.layout import NODE_LOCAL, RECORD, shared_path
from tunegate.training.run.parts import KeyValueStore
from tunegate.training.run.plan import Plan, RunRecord, read_record, record_of

SHARED_SECONDS = 30.0  # network file systems remember for some seconds that a file is not there


@dataclass(frozen=True)
class Folders:
    """owners: for each rank the first of those that have its folder. rank: this one. have_parts: in some folder lies a
    part of a checkpoint, also where one node alone is left."""

    owners: tuple[int, ...] = (0,)
    rank: int = 0
    have_parts: bool = False

    @property
    def is_shared(self) -> bool:
        return set(self.owners) == {0}

    @property
    def leads(self) -> bool:
        """Whether this rank does what is done once in each folder."""
        return self.owners[self.rank] == self.rank

    @property
    def others(self) -> tuple[int, ...]:
        """The first rank in each folder but the first rank's."""
        return tuple(sorted(set(self.owners) - {0}))


def find_folders(output_dir: Path) -> Folders:
    """Let every rank leave a mark in its folder, and see whose are there. Called in every rank at once."""
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    token = [secrets.token_hex(8) if rank == 0 else ""]
    torch.distributed.broadcast_object_list(token)
    own, first = (shared_path(output_dir, token[0], each) for each in (rank, 0))
    own.touch()
    torch.distributed.barrier()
    # Before the ranks began the first node's command has written the record: a folder without it is another one.
    is_node_local = (output_dir / NODE_LOCAL).exists() or not (output_dir / RECORD).exists()
    owner = 0 if appears(first, 0 if is_node_local else SHARED_SECONDS) else _smallest(output_dir, token[0])
    found = [(0, False)] * size
    has_parts = any(one.marker.part for one in complete_checkpoints(output_dir))
    torch.distributed.all_gather_object(found, (owner, has_parts))
    own.unlink()
    return Folders(tuple(owner for owner, _ in found), rank, any(has_parts for _, has_parts in found))


def agree_on_record(output_dir: Path, plan: Plan, kv_store: KeyValueStore | None) -> RunRecord:
    """What the run began with, as the first rank says whose folder has it. Called in every rank at once, before they
    have a process group; `kv_store` is their key-value store, None where there is one rank.

    A node with a folder of its own has no record before its ranks have met others, or one of an earlier run. Raises
    TrainingError when nobody has one.
    """
    own, place = read_record(output_dir), f"tunegate/record/{os.environ['RANK']}"
    records = [own]
    if kv_store:
        kv_store.set(place, msgspec.json.encode(own))
        places = [f"tunegate/record/{rank}" for rank in range(int(os.environ["WORLD_SIZE"]))]
        records = [msgspec.json.decode(kv_store.get(each), type=RunRecord | None) for each in places]
    found = [record for record in records if record]
    if not found:
        raise not_shared(output_dir)
    wanted = record_of(plan.producer).identity
    return next((record for record in found if record.identity == wanted), found[0])


def appears(path: Path, seconds: float = float("inf")) -> bool:
    """Wait for `path`. A launcher ends those that wait when the one that works has failed."""
    deadline = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True


def not_shared(output_dir: Path) -> TrainingError:
    return TrainingError(
        f"{output_dir} is not the same folder on all nodes, and there is no store to keep what each has; give --store, "
        "or mount one ReadWriteMany volume there on each."
    )


def _smallest(output_dir: Path, token: str) -> int:
    marks = output_dir.glob(shared_path(output_dir, token, 0).name.removesuffix("0") + "*")
    return min(int(mark.name.rpartition("-")[2]) for mark in marks)
