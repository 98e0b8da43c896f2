"""Ranks that are forked from one process, which has imported what they need: that takes longer than these runs do.

Run as a program it is that process. It reads a line for each run and forks its ranks, which do as torchrun's would.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from tunegate.garbage import lasting_imports
from tunegate.processes import free_port


@dataclass(frozen=True)
class Ranks:
    """The ranks of one run, which go on until `wait`."""

    pids: list[int]
    log: Path
    _server: subprocess.Popen[str]

    def wait(self) -> list[int]:
        """The status of each: that of its `main`, or less than zero where a signal ended it."""
        statuses: list[int] = _reply(self._server)
        return statuses


class Forks:
    def __init__(self, server: subprocess.Popen[str]) -> None:
        self._server = server

    def start(self, plans: Path | Sequence[Path], size: int, **variables: str) -> Ranks:
        """Start `size` ranks for the plan in a file; they write to a log beside it.

        plans: or as many files, for ranks that are each alone on a node. LARGEST_SHARD: in bytes; DIE_AT: the rank that
        is to write a shard with this in its path is killed instead, as soon as there is a file DIE_WITH.
        """
        place = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        environment = {**os.environ, **place, "GLOO_SOCKET_IFNAME": "lo", "HF_HUB_OFFLINE": "1", **variables}
        each = [plans] * size if isinstance(plans, Path) else plans
        log = each[0].with_name("ranks.log")
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps([[str(plan) for plan in each], str(log), environment]) + "\n")
        self._server.stdin.flush()
        return Ranks(_reply(self._server), log, self._server)


@contextmanager
def forks(python: str) -> Iterator[Forks]:
    words = [python, "-m", __name__]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        yield Forks(server)


def _reply(server: subprocess.Popen[str]) -> list[int]:
    assert server.stdout is not None
    reply: list[int] = json.loads(server.stdout.readline())
    return reply


def _serve() -> None:
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print as they are imported
    with lasting_imports():
        import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401 - DeepSpeed does so when it starts

        from tunegate.training.launch.worker import main
    for line in sys.stdin:
        plans, log, environment = json.loads(line)
        pids = []
        for rank in range(int(environment["WORLD_SIZE"])):
            pid = os.fork()
            if pid == 0:
                output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
                os.dup2(output, 1)
                os.dup2(output, 2)
                os.environ.clear()
                local = rank if plans[0] == plans[-1] else 0
                os.environ.update(environment, RANK=str(rank), LOCAL_RANK=str(local))
                _prepare_shards(environment)
                _end(main, Path(plans[rank]))
            pids.append(pid)
        print(json.dumps(pids), file=replies, flush=True)
        statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        print(json.dumps(statuses), file=replies, flush=True)


def _prepare_shards(environment: dict[str, str]) -> None:
    from tunegate.training.loop import shards, trainer

    trainer.LARGEST = int(environment.get("LARGEST_SHARD", trainer.LARGEST))
    save_file = shards.save_file

    def save_unless_killed(weights: dict[str, Any], path: Path, **options: Any) -> None:
        if environment.get("DIE_AT", "no such path") in str(path):
            while not os.path.exists(environment.get("DIE_WITH", "/")):
                time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGKILL)
        save_file(weights, path, **options)

    shards.save_file = save_unless_killed


def _end(main: Callable[[Path], int], plan: Path) -> NoReturn:
    """End a fork as a program would, without what its parent would do at its own end."""
    status = 1
    try:
        status = main(plan)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


if __name__ == "__main__":
    _serve()
