"""Start a run's processes under torchrun, report what they do, and make sure that none of them stays behind.

A run is level-triggered: the same call starts it, resumes it after it was killed, or only reports that it is complete.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from pathlib import Path

from tunegate.api.codec import to_json
from tunegate.api.versions import ModelVersion
from tunegate.processes import Child
from tunegate.training.config import TrainConfig, check_config
from tunegate.training.data.prepare import Preparing
from tunegate.training.launch.failure import read_failure
from tunegate.training.launch.lifecycle import begin, finish, join, wait_until_finished
from tunegate.training.launch.nodes import Node, read_node
from tunegate.training.run.layout import LOG, NODE_LOCAL, STOP, UPLOADS, VERSIONS, failures, hold, log_path, plan_path
from tunegate.training.run.plan import Plan, threads_per_process
from tunegate.training.run.preemption import StopRequest, stoppable
from tunegate.training.run.progress import Follower, Progress, Report, Uploading


def train(config: TrainConfig, report: Report | None = None) -> list[ModelVersion]:
    """Run `config` to its end and return the run's versions, oldest first; none on nodes but the first, or without a
    store, where `output_dir` holds what the run left.

    Several nodes, as torchrun's variables in the environment say, share one `output_dir`, or have one each and a store.
    `report` gets the state of the data while it is tokenized, every logging step, and every version as soon as it is
    in the store.
    Raises UsageError, DataError, ModelError or StoreError before anything starts, TrainingError when training fails,
    Preempted when the run was asked to stop and has kept a checkpoint.
    """
    check_config(config)
    node = read_node(os.environ, platform.node())
    processes = config.nproc_per_node * node.count
    output_dir = Path(config.output_dir).absolute()
    with stoppable() as stop:
        if not node.is_first:
            planned = join(config, output_dir, processes)
            if not planned.is_complete:
                _run(planned.plan, node, output_dir, _ignore, stop)
            if not planned.is_published:
                wait_until_finished(config, output_dir)
            return []
        with hold(output_dir):
            planned = begin(config, output_dir, processes, report)
            if not planned.is_complete:
                _run(planned.plan, node, output_dir, report or _ignore, stop)
            return finish(planned.plan, output_dir)


def _run(plan: Plan, node: Node, output_dir: Path, report: Report, stop: StopRequest) -> None:
    for stale in failures(output_dir).values() if node.is_first or (output_dir / NODE_LOCAL).exists() else ():
        stale.unlink(missing_ok=True)
    failed = _failed(output_dir)
    path = plan_path(output_dir, node.index)
    path.write_bytes(to_json(plan))
    steps = Follower(output_dir / LOG, Progress, from_end=True)
    uploads = Follower(output_dir / UPLOADS, Uploading, from_end=True)
    versions = Follower(output_dir / VERSIONS, ModelVersion, from_end=True)
    # --standalone finds a free port itself; the address keeps it on loopback. PET_* say how several nodes rendezvous.
    rendezvous = ["--standalone", "--local-addr", "127.0.0.1"] if node.is_alone else []
    # Ranks write to this process's log; without a --log-dir torchrun leaves an empty folder in /tmp each time.
    options = [*rendezvous, "--nproc-per-node", str(plan.config.nproc_per_node), "--log-dir", os.devnull]
    command = [sys.executable, "-m", "tunegate.training.launch.agent", *options, str(path)]
    log = log_path(output_dir, node.index)
    with Child.start("training", command, log=log, env=_environment(plan, node)) as child:
        stop.is_training = running = True
        while running:
            running = child.exit_code is None
            if stop.requested:
                (output_dir / STOP).touch()
            for follower in (steps, uploads, versions):
                for news in follower.new():
                    report(news)
            if (output_dir / STOP).exists() and _failed(output_dir) - failed:
                break  # torchrun would restart the ranks, if it may, which have done what they were asked
            time.sleep(0.2 if running else 0)
        stop.is_training = False
        if child.exit_code != 0:
            raise read_failure(output_dir, child.log)


def _environment(plan: Plan, node: Node) -> dict[str, str]:
    """Ranks share the CPUs evenly, and ask no model hub; on one node they talk over loopback."""
    loopback = {"GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo"}
    return {
        "OMP_NUM_THREADS": str(threads_per_process(plan.config.nproc_per_node)),
        **(loopback if node.is_alone else {}),
        # torchrun of torch 2.13 keeps its own store when ranks are lost: restarted ones find the addresses of dead ones
        # in it, and a node that replaces another doesn't learn where it is.
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        # Nothing is compiled, but deepspeed 0.19 imports torch's compiler, for Muon, when it is given any optimizer.
        "TORCHDYNAMO_DISABLE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
    }


def _failed(output_dir: Path) -> set[tuple[str, int]]:
    """Which ranks have said why they gave up, and when."""
    return {(path.name, path.stat().st_mtime_ns) for path in failures(output_dir).values()}


def _ignore(news: Preparing | Progress | Uploading | ModelVersion) -> None:
    pass
