"""Start a run's processes under torchrun, tell what they do, and make sure that nothing of them stays behind.

A run is level-triggered: the same call starts it, goes on with it after it was killed, or only reports that it is
complete. Knows no torch.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

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
    unpublished,
)
from tunegate.training.log import LOG, VERSIONS, Follower, Progress, cut_log
from tunegate.training.nodes import Node, read_node
from tunegate.training.plan import Plan, check_same_run, make_plan, owned, threads_per_process
from tunegate.training.tokens import Preparing

Report = Callable[[Preparing | Progress | ModelVersion], None]


class Failure(Resource, frozen=True, kw_only=True):
    """Why a process gave up; `explained` when the message is a sentence for the user."""

    message: str
    explained: bool


def train(config: TrainConfig, report: Report | None = None) -> list[ModelVersion]:
    """Run `config` to its end and return the run's versions, oldest first; on all nodes but the first, none.

    Several nodes, as torchrun's variables in the environment say, share one `output_dir`.
    `report` hears of the data while it is tokenised, of every logging step, and of every version as soon as it is in
    the store.
    Raises UsageError, DataError, ModelError or StoreError before anything starts, TrainingError when training fails.
    """
    check_config(config)
    node = read_node(os.environ, platform.node())
    output_dir = Path(config.output_dir).absolute()
    if not node.is_first:
        _assist(config, node, output_dir)
        return []
    with owned(output_dir):
        store = Store.open(config.store, endpoint_url=config.endpoint_url)
        plan = make_plan(config, store, output_dir, report)
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
                cut_log(output_dir, newest.step if newest else 0)
                _run(plan, node, output_dir, report or _ignore)
            _publish_rest(store, plan, output_dir)
        return _versions(store, config)


def _assist(config: TrainConfig, node: Node, output_dir: Path) -> None:
    """Train as one of several nodes. What is done once, the first node does before it lets training begin."""
    store = Store.open(config.store, endpoint_url=config.endpoint_url)
    output_dir.mkdir(parents=True, exist_ok=True)
    plan = make_plan(config, store, output_dir)
    published, local = _versions(store, config), complete_checkpoints(output_dir)
    if (published and _is_last(store.manifest(published[-1].uri))) or (local and local[-1].is_last):
        return
    _run(plan, node, output_dir, _ignore)


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
    model, run = plan.config.model, plan.config.run
    for checkpoint in unpublished(store, model, run, output_dir):
        publish_checkpoint(store, checkpoint, f"{model}/{run}", plan.release, plan.producer)


def _run(plan: Plan, node: Node, output_dir: Path, report: Report) -> None:
    name = "" if node.is_first else f"-{node.index}"
    for stale in output_dir.glob("failure-*.json") if node.is_first else ():
        stale.unlink(missing_ok=True)
    path = output_dir / f"plan{name}.json"  # the base model lies elsewhere on each node
    path.write_bytes(to_json(plan))
    steps = Follower(output_dir / LOG, Progress, from_end=True)
    versions = Follower(output_dir / VERSIONS, ModelVersion, from_end=True)
    log = output_dir / f"train{name}.log"
    with Child.start("training", _torchrun(plan, node, path), log=log, env=_environment(plan, node)) as child:
        running = True
        while running:
            running = child.exit_code is None
            for follower in (steps, versions):
                for news in follower.new():
                    report(news)
            time.sleep(0.2 if running else 0)
        if child.exit_code:
            raise TrainingError(_explain(output_dir, child))


def _torchrun(plan: Plan, node: Node, path: Path) -> list[str]:
    # --standalone finds a free port itself; the address keeps it on loopback. Several nodes meet as PET_* say.
    rendezvous = ["--standalone", "--local-addr", "127.0.0.1"] if node.is_alone else []
    module = ["-m", "tunegate.training.worker", str(path)]
    processes = ["--nproc-per-node", str(plan.config.nproc_per_node)]
    return [sys.executable, "-m", "torch.distributed.run", *rendezvous, *processes, *module]


def _environment(plan: Plan, node: Node) -> dict[str, str]:
    """Ranks share the processors evenly, and ask no model hub; on one node they talk over loopback."""
    loopback = {"GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo"}
    return {
        "OMP_NUM_THREADS": str(threads_per_process(plan.config.nproc_per_node)),
        **(loopback if node.is_alone else {}),
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


def _ignore(news: Preparing | Progress | ModelVersion) -> None:
    pass
