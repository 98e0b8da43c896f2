"""A run whose ranks somebody else's launcher started: torchrun, torch.distributed.launch or deepspeed.

`train` is then called in each of them. The first one plans; the others wait for its word in the launcher's own
key-value store and not in a collective, whose watchdog would end them while data is tokenized.
"""

from __future__ import annotations

import os
import platform
import time
from datetime import timedelta
from pathlib import Path

from tunegate.api.codec import Resource, from_json, to_json
from tunegate.api.errors import Preempted, TunegateError
from tunegate.api.versions import ModelVersion
from tunegate.training.config import TrainConfig, check_config
from tunegate.training.launch.lifecycle import Begun, assist, begin, finish
from tunegate.training.launch.worker import explain
from tunegate.training.loop.rendezvous import Store, meet
from tunegate.training.loop.trainer import run
from tunegate.training.run.layout import hold
from tunegate.training.run.plan import Plan
from tunegate.training.run.preemption import Stop, stoppable
from tunegate.training.run.progress import Report

_PATIENCE = timedelta(days=7)
_FAREWELL = timedelta(seconds=10)


class _Word(Resource, frozen=True, kw_only=True):
    """What a planning rank tells those that wait; without a plan nothing is left to do, or nothing can be done."""

    plan: Plan | None = None
    exit_code: int = 0


def train(config: TrainConfig, report: Report | None = None) -> list[ModelVersion]:
    """The same as `launch.train`, in every rank at once; only the first returns versions.

    Raises what `launch.train` raises, in the first rank; SystemExit with its status in those that have nothing to add.
    """
    output_dir = Path(config.output_dir).absolute()
    rank, local = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    with stoppable() as stop:
        store, size = meet(), int(os.environ["WORLD_SIZE"])
        store.set_timeout(_PATIENCE)
        if rank == 0:
            return _first(config, output_dir, report, stop, store, size)
        _hear(store, "first")
        if local == 0 and not store.check([platform.node()]):
            _tell(store, platform.node(), assist(config, output_dir, size))
        plan = _hear(store, platform.node())
        stop.waits = True
        try:
            run(plan, output_dir, stop)
        except Preempted as error:
            raise SystemExit(error.exit_code) from None
        return []


def _first(
    config: TrainConfig, output_dir: Path, report: Report | None, stop: Stop, store: Store, size: int
) -> list[ModelVersion]:
    try:
        check_config(config)
        with hold(output_dir):
            begun = begin(config, output_dir, size, report)
            _tell(store, platform.node(), begun)
            _tell(store, "first", begun)
            if not begun.is_complete:
                stop.waits = True
                _run(begun.plan, output_dir, stop, report)
                stop.waits = False
            else:
                _wait_until_heard(store, size)
            return finish(begun.plan, output_dir)
    except TunegateError as error:
        if not store.check(["first"]):
            store.set("first", to_json(_Word(exit_code=error.exit_code)))
            _wait_until_heard(store, size)
        raise


def _run(plan: Plan, output_dir: Path, stop: Stop, report: Report | None) -> None:
    try:
        run(plan, output_dir, stop, report)
    except TunegateError:
        raise
    except Exception as error:
        failure = explain(error, output_dir)
        if failure.explained:
            raise TunegateError(failure.message) from error
        raise


def _tell(store: Store, key: str, begun: Begun) -> None:
    store.set(key, to_json(_Word(plan=None if begun.is_complete else begun.plan)))


def _hear(store: Store, key: str) -> Plan:
    """Wait for the plan under `key`. Raises SystemExit when there is nothing to do."""
    word = from_json(store.get(key), _Word, key)
    if word.plan is None:
        store.add("heard", 1)
        raise SystemExit(word.exit_code)
    return word.plan


def _wait_until_heard(store: Store, size: int) -> None:
    """The store goes with this process, and a rank that finds it gone would say that instead of ending quietly."""
    deadline = time.monotonic() + _FAREWELL.total_seconds()
    while store.add("heard", 0) < size - 1 and time.monotonic() < deadline:
        time.sleep(0.05)
