"""Where all ranks of a run go on from, agreed upon inside the processes that train."""

from __future__ import annotations

import secrets
import time
from pathlib import Path

import torch

from tunegate.api.errors import TrainingError
from tunegate.training.checkpoints import complete_checkpoints, remove_incomplete
from tunegate.training.log import cut_log

_SHARED_SECONDS = 30.0  # network file systems remember for some seconds that a file is not there


def settle(output_dir: Path, *, is_first: bool) -> str | None:
    """Where all ranks go on from: the newest complete checkpoint, once what a broken attempt left is cleared away.

    torchrun may have started the ranks anew after it lost a node, so a plan can't know. Raises TrainingError when the
    nodes don't see the same folder: each would keep a part of every checkpoint that no other can read.
    """
    token = [secrets.token_hex(8) if is_first else ""]
    torch.distributed.broadcast_object_list(token)
    mark = output_dir / f".shared-{token[0]}"
    if is_first:
        remove_incomplete(output_dir)
        mark.touch()
    torch.distributed.barrier()
    deadline = time.monotonic() + _SHARED_SECONDS
    while not mark.exists():
        if time.monotonic() > deadline:
            raise TrainingError(
                f"{output_dir} is not the same folder on all nodes; mount one ReadWriteMany volume there on each."
            )
        time.sleep(0.5)
    newest = next(reversed(complete_checkpoints(output_dir)), None)
    torch.distributed.barrier()
    if is_first:
        mark.unlink()
        cut_log(output_dir, newest.step if newest else 0)
    return str(newest.resume) if newest else None
