"""A run whose ranks another launcher started: torchrun, torch.distributed.launch or deepspeed.

`train` is then called in each of them. The first one plans; the others wait for the plan in the rendezvous' key-value
store and not in a collective, whose watchdog would end them while data is tokenized.
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
from tunegate.garbage import lasting_imports
from tunegate.training.config import TrainConfig, check_config
from tunegate.training.launch.failure import explain
from tunegate.training.launch.lifecycle import PlannedRun, begin, finish, join
from tunegate.training.run.layout import hold
from tunegate.training.run.parts import KeyValueStore
from tunegate.training.run.plan import Plan
from tunegate.training.run.preemption import StopRequest, stoppable
from tunegate.training.run.progress import Report

# As in ranks of our own, and before torch is imported: deepspeed 0.19 would import torch's compiler, for Muon.
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
with lasting_imports():
    from tunegate.training.loop.rendezvous import join_rendezvous
    from tunegate.training.loop.trainer import run

_PLANNING = timedelta(days=7)
_RECEIVING = timedelta(seconds=10)


class _Assignment(Resource, frozen=True, kw_only=True):
    """What a planning rank sends to those that wait; no plan when nothing is left to do, or nothing can be done."""

    plan: Plan | None = None
    exit_code: int = 0


def train(config: TrainConfig, report: Report | None = None) -> list[ModelVersion]:
    """The same as `torchrun.train`, in every rank at once; only the first returns versions.

    Raises what `torchrun.train` raises, in the first rank; SystemExit with its status in the others.
    """
    output_dir = Path(config.output_dir).absolute()
    rank, local = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    with stoppable() as stop:
        store, size = join_rendezvous(), int(os.environ["WORLD_SIZE"])
        store.set_timeout(_PLANNING)
        if rank == 0:
            return _plan_and_run(config, output_dir, report, stop, store, size)
        _receive_plan(store, "first")
        if local == 0 and not store.check([platform.node()]):
            _send_plan(store, platform.node(), join(config, output_dir, size))
        plan = _receive_plan(store, platform.node())
        stop.is_training = True
        try:
            run(plan, output_dir, stop, kv_store=store)
        except Preempted as error:
            raise SystemExit(error.exit_code) from None
        return []


def _plan_and_run(
    config: TrainConfig, output_dir: Path, report: Report | None, stop: StopRequest, store: KeyValueStore, size: int
) -> list[ModelVersion]:
    try:
        check_config(config)
        with hold(output_dir):
            planned = begin(config, output_dir, size, report)
            if planned.is_complete:  # the others end when they receive that: not before everything is published
                versions = finish(planned.plan, output_dir)
            _send_plan(store, platform.node(), planned)
            _send_plan(store, "first", planned)
            if planned.is_complete:
                _wait_until_received(store, size)
                return versions
            stop.is_training = True
            run(planned.plan, output_dir, stop, report, store)
            stop.is_training = False
            return finish(planned.plan, output_dir)
    except TunegateError as error:
        if not store.check(["first"]):
            store.set("first", to_json(_Assignment(exit_code=error.exit_code)))
            _wait_until_received(store, size)
        raise
    except Exception as error:
        failure = explain(error, output_dir)
        if failure.explained:
            raise TunegateError(failure.message) from error
        raise


def _send_plan(store: KeyValueStore, key: str, planned: PlannedRun) -> None:
    store.set(key, to_json(_Assignment(plan=None if planned.is_complete else planned.plan)))


def _receive_plan(store: KeyValueStore, key: str) -> Plan:
    """Wait for the plan under `key`. Raises SystemExit when there is nothing to do."""
    assignment = from_json(store.get(key), _Assignment, key)
    if assignment.plan is None:
        store.add("received", 1)
        raise SystemExit(assignment.exit_code)
    return assignment.plan


def _wait_until_received(store: KeyValueStore, size: int) -> None:
    """The store goes with this process, and a rank that finds it gone would say that instead of ending quietly."""
    deadline = time.monotonic() + _RECEIVING.total_seconds()
    while store.add("received", 0) < size - 1 and time.monotonic() < deadline:
        time.sleep(0.05)
