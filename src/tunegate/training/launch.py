"""Start a run's processes under torchrun, tell what they do, and make sure that nothing of them stays behind.

A run is level-triggered: the same call starts it, goes on with it after it was killed, or only reports that it is
complete. Knows no torch.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from tunegate.api.errors import TrainingError, UsageError
from tunegate.api.resource import Resource, from_json, to_json
from tunegate.api.versions import Manifest, ModelVersion
from tunegate.processes import Child
from tunegate.store import Store
from tunegate.training.arguments import TrainConfig, check_config
from tunegate.training.checkpoints import (
    Checkpoint,
    complete_checkpoints,
    fetch_checkpoint,
    publish_checkpoint,
    remove_incomplete,
)
from tunegate.training.log import LOG, VERSIONS, Follower, Progress, cut_log
from tunegate.training.plan import PLAN, Plan, check_same_run, make_plan, owned, threads_per_process

TRAIN_LOG = "train.log"
Report = Callable[[Progress | ModelVersion], None]


class Failure(Resource, frozen=True, kw_only=True):
    """Why a process gave up; `explained` when the message is a sentence for the user."""

    message: str
    explained: bool


def train(config: TrainConfig, report: Report | None = None) -> list[ModelVersion]:
    """Run `config` to its end and return the run's versions, oldest first.

    `report` hears of every logging step, and of every version as soon as it is in the store.
    Raises UsageError, DataError, ModelError or StoreError before anything starts, TrainingError when training fails.
    """
    check_config(config)
    output_dir = Path(config.output_dir).absolute()
    with owned(output_dir):
        store = Store.open(config.store, endpoint_url=config.endpoint_url)
        plan = make_plan(config, store, output_dir)
        published = _versions(store, config)
        latest = store.manifest(published[-1].uri) if published else None
        check_same_run(plan, output_dir, latest)
        remove_incomplete(output_dir)
        if not config.resume and (published or complete_checkpoints(output_dir)):
            raise UsageError(
                f"The run {config.run} has checkpoints; leave out --no-resume to go on, or give a new --run."
            )
        if latest is None or not _is_last(latest):
            newest = _newest(store, published, output_dir)
            if newest is None or not newest.is_last:
                _run(plan, newest, output_dir, report or _ignore)
            _publish_rest(store, plan, output_dir)
        return _versions(store, config)


def _is_last(manifest: Manifest) -> bool:
    return str(manifest.producer.step) == manifest.producer.notes.get("totalSteps")


def _newest(store: Store, published: list[ModelVersion], output_dir: Path) -> Checkpoint | None:
    """The newest complete checkpoint, fetched if only the store has it."""
    local = complete_checkpoints(output_dir)
    newest = local[-1] if local else None
    if published and (newest is None or step_of(published[-1]) > newest.step):
        newest = fetch_checkpoint(store, published[-1], output_dir)
    return newest


def _versions(store: Store, config: TrainConfig) -> list[ModelVersion]:
    """The run's versions in the order of their steps."""
    return sorted((one for one in store.list(config.model) if one.run == config.run), key=step_of)


def step_of(version: ModelVersion) -> int:
    return int(version.name.rsplit("-", 1)[1])


def _publish_rest(store: Store, plan: Plan, output_dir: Path) -> None:
    """Publish what a killed run completed and did not get to publish."""
    known = {version.name for version in _versions(store, plan.config)}
    name = f"{plan.config.model}/{plan.config.run}"
    for checkpoint in complete_checkpoints(output_dir):
        if f"{name}/checkpoint-{checkpoint.step}" not in known:
            publish_checkpoint(store, checkpoint, name, plan.release, plan.producer)


def _run(plan: Plan, newest: Checkpoint | None, output_dir: Path, report: Report) -> None:
    cut_log(output_dir, newest.step if newest else 0)
    for stale in output_dir.glob("failure-*.json"):
        stale.unlink()
    plan = msgspec.structs.replace(plan, resume_from=str(newest.resume) if newest else None)
    (output_dir / PLAN).write_bytes(to_json(plan))
    steps = Follower(output_dir / LOG, Progress, from_end=True)
    versions = Follower(output_dir / VERSIONS, ModelVersion, from_end=True)
    with Child.start(
        "training", _torchrun(plan, output_dir), log=output_dir / TRAIN_LOG, env=_environment(plan)
    ) as child:
        running = True
        while running:
            running = child.exit_code is None
            for follower in (steps, versions):
                for news in follower.new():
                    report(news)
            time.sleep(0.2 if running else 0)
        if child.exit_code:
            raise TrainingError(_explain(output_dir, child))


def _torchrun(plan: Plan, output_dir: Path) -> list[str]:
    # --standalone finds a free port itself; the address keeps it on loopback.
    rendezvous = ["--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", str(plan.config.nproc_per_node)]
    module = ["-m", "tunegate.training.worker", str(output_dir / PLAN)]
    return [sys.executable, "-m", "torch.distributed.run", *rendezvous, *module]


def _environment(plan: Plan) -> dict[str, str]:
    """One node: ranks talk over loopback, share the processors evenly, and ask no model hub."""
    return {
        "OMP_NUM_THREADS": str(threads_per_process(plan.config.nproc_per_node)),
        "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
    }


def _explain(output_dir: Path, child: Child) -> str:
    paths = sorted(output_dir.glob("failure-*.json"), key=lambda path: path.stat().st_mtime)
    failures = [from_json(path.read_bytes(), Failure, str(path)) for path in paths]
    again = f"run the same command again to go on from the newest checkpoint (log: {child.log})"
    for failure in failures:
        if failure.explained:
            return failure.message
    if failures:
        return f"Training failed: {failures[0].message}; {again}."
    return f"A training process was ended from outside; {again}."


def _ignore(news: Progress | ModelVersion) -> None:
    pass
