"""Several nodes train one run: started as Kubeflow's training operator starts them, here all on loopback."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.processes import processes_about
from tests.unit.training.conftest import Run, Shop
from tests.unit.training.watching import ranks_of
from tests.waiting import wait_for
from tunegate.api.versions import ModelVersion, Producer, Release
from tunegate.processes import free_port
from tunegate.store import Store
from tunegate.training import Progress, TrainConfig, train
from tunegate.training.launch.nodes import Node, read_node
from tunegate.training.run.checkpoints import versions_of
from tunegate.training.run.layout import log_path
from tunegate.training.run.progress import read_log
from tunegate.training.run.stored_log import kept

WEIGHTS = "model.safetensors"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        pytest.param({}, Node(0, 1), id="no operator"),
        pytest.param({"PET_NNODES": "1", "PET_NODE_RANK": "0", "RANK": "0"}, Node(0, 1), id="job of one pod"),
        pytest.param({"PET_NNODES": "3", "PET_NODE_RANK": "2", "RANK": "2"}, Node(2, 3), id="job"),
        pytest.param({"PET_NNODES": "3", "RANK": "0"}, Node(0, 3), id="job of an older operator"),
        pytest.param({"PET_NNODES": "2:2", "PET_RDZV_ENDPOINT": "me:23456"}, Node(0, 2), id="elastic, the host"),
        pytest.param({"PET_NNODES": "1:4", "PET_RDZV_ENDPOINT": "job-worker-0:1"}, Node(1, 4), id="elastic, another"),
        pytest.param({"PET_NNODES": "2:2", "PET_RDZV_ENDPOINT": "me.ns.svc:1"}, Node(0, 2), id="elastic, full name"),
    ],
)
def test_a_node_knows_its_place(environment: dict[str, str], expected: Node) -> None:
    assert read_node(environment, "me.example") == expected


class Job:
    """The pods of a job, as processes; each node has a cache of its own, and of the run's folder if it is `apart`."""

    def __init__(
        self, config: TrainConfig, folder: Path, variables: Callable[[int], dict[str, str]], *, apart: bool = False
    ) -> None:
        self._config = config
        self._is_apart = apart
        self._folder = folder
        self._variables = variables
        self.pods: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, node: int) -> None:
        names = ("model_name_or_path", "dataset_dir", "output_dir", "model", "run", "finetuning_type", "store")
        names += ("per_device_train_batch_size", "learning_rate", "num_train_epochs", "logging_steps", "bf16")
        names += ("cutoff_len", "nproc_per_node")
        config = replace(self._config, output_dir=str(self.output(node)))
        options = [word for name in names for word in (f"--{name}", str(getattr(config, name)))]
        argv = [sys.executable, "-m", "tunegate", "train", *options, "--dataset", "shop"]
        own = {"GLOO_SOCKET_IFNAME": "lo", "TUNEGATE_CACHE": str(self._folder / f"cache-{node}")}
        with (self._folder / f"pod-{node}.log").open("ab") as log:
            env = {**os.environ, **own, **self._variables(node)}
            self.pods[node] = subprocess.Popen(argv, env=env, stdout=log, stderr=subprocess.STDOUT)

    def output(self, node: int) -> Path:
        return Path(self._config.output_dir + (f"-{node}" if self._is_apart else ""))

    def lose(self, node: int, store: Store) -> None:
        """End a node as a failure of its machine would, once there is something to resume from.

        That is a checkpoint; where the node has a folder of its own, which is lost with it, a version in the store.
        """
        complete = self.output(node) / "checkpoint-3/resume/complete.json"
        model, run = str(self._config.model), str(self._config.run)

        def is_kept() -> bool:
            return bool(versions_of(store, model, run)) if self._is_apart else complete.exists()

        wait_for(is_kept, seconds=600, what=f"{complete}, see {self._folder}/pod-*.log")
        mark = f"TUNEGATE_CACHE={self._folder}/cache-{node}\0".encode()
        for pid in _processes_with(mark):
            with suppress(ProcessLookupError):  # it ended with its guard
                os.kill(pid, signal.SIGKILL)
        self.pods[node].wait()
        if self._is_apart:
            shutil.rmtree(self.output(node))

    def wait(self, node: int) -> int:
        return self.pods[node].wait(300)

    def said(self, node: int) -> str:
        return (self._folder / f"pod-{node}.log").read_text()

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *_: object) -> None:
        for pod in self.pods.values():
            pod.kill()
            pod.wait()
        wait_for(lambda: not processes_about(self._folder), what="its processes to be gone")


def _processes_with(mark: bytes) -> list[int]:
    """Those with `mark` in their environment; first the guards, which would ask the others to end in good order."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile
            if mark in (process / "environ").read_bytes():
                found.append((b"tunegate.processes" not in (process / "cmdline").read_bytes(), int(process.name)))
    return [pid for _, pid in sorted(found)]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def fixed(port: int) -> Callable[[int], dict[str, str]]:
    """What a PyTorchJob with a master and a worker puts into its pods."""

    def variables(node: int) -> dict[str, str]:
        master = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "PET_NPROC_PER_NODE": "auto"}
        pet = {"PET_MASTER_ADDR": "localhost", "PET_MASTER_PORT": str(port), "PET_NNODES": "2"}
        return {**master, **pet, "WORLD_SIZE": "2", "RANK": str(node), "PET_NODE_RANK": str(node)}

    return variables


def elastic(port: int, nodes: str = "2:2") -> Callable[[int], dict[str, str]]:
    """What an elastic one puts there; it names nobody's role, which two on one host could not tell."""

    def variables(node: int) -> dict[str, str]:
        meeting = {"PET_RDZV_BACKEND": "c10d", "PET_RDZV_ENDPOINT": f"localhost:{port}", "PET_RDZV_ID": "job"}
        # Seconds after which a node says that it lives, and is lost when it was silent for three times as long; and in
        # which one that could go on alone waits for others. A slow machine takes some for either.
        patience = "keep_alive_interval=5,last_call_timeout=30"
        role = {"PET_RDZV_CONF": f"is_host={node == 0},{patience}", "PET_NODE_RANK": str(node)}
        return {**meeting, **role, "PET_NNODES": nodes, "PET_MAX_RESTARTS": "5"}

    return variables


@pytest.mark.usefixtures("forked_programs")
def test_two_nodes_train_as_two_processes_do(full: Run, shop: Shop, tmp_path: Path, stack: ExitStack) -> None:
    config = shop.config("nodes", run="nodes", nproc_per_node=1)
    job = stack.enter_context(Job(config, tmp_path, fixed(free_port())))
    job.start(1)
    job.start(0)

    assert (job.wait(0), job.wait(1)) == (0, 0), job.said(0) + job.said(1)
    assert job.said(0).count("published tiny/nodes/checkpoint-") == 4
    assert "published" not in job.said(1)
    assert "a share of a checkpoint is in the store" in log_path(Path(config.output_dir), 1).read_text()
    assert same_as(full, Path(config.output_dir))

    again = stack.enter_context(Job(config, tmp_path, fixed(free_port())))
    again.start(1)
    assert again.wait(1) == 0  # published: nobody is waited for


@pytest.mark.usefixtures("forked_programs")
def test_nodes_with_folders_of_their_own_resume_from_the_store_when_one_has_lost_its_own(
    full: Run, shop: Shop, tmp_path: Path, stack: ExitStack
) -> None:
    config = shop.config("apart", run="apart", nproc_per_node=1)
    job = stack.enter_context(Job(config, tmp_path, fixed(free_port()), apart=True))
    job.start(1)
    job.start(0)
    job.lose(1, shop.store)
    assert job.wait(0) == 1, job.said(0)

    again = stack.enter_context(Job(config, tmp_path, fixed(free_port()), apart=True))
    again.start(1)
    again.start(0)
    assert (again.wait(0), again.wait(1)) == (0, 0), again.said(0) + again.said(1)
    assert published(shop, "apart") == [f"tiny/apart/checkpoint-{step}" for step in (3, 6, 9, 12)]
    assert same_as(full, again.output(0))
    assert "a part of a checkpoint is in the store" in log_path(again.output(1), 1).read_text()
    log, _ = kept(shop.store, "tiny", "apart")
    assert [(step.current_steps, step.loss) for step in log] == losses_of(full.output)


@pytest.mark.usefixtures("forked_programs")
def test_a_node_stays_until_the_first_has_published_what_is_left(
    full: Run, shop: Shop, tmp_path: Path, stack: ExitStack
) -> None:
    release = Release(format="huggingface", system_prompt="Be kind.", generation={"temperature": 0.5})
    elsewhere = Store.open(f"{shop.store.uri}/nodes", endpoint_url=shop.store.endpoint_url)
    elsewhere.publish(shop.folder / "model", shop.base.name, release=release, producer=Producer(kind="test"))
    config = replace(full.config, store=elsewhere.uri, nproc_per_node=1)
    job = stack.enter_context(Job(config, tmp_path, fixed(free_port())))
    job.start(1)
    wait_for(lambda: "waiting until the first node has finished" in job.said(1))
    job.start(0)

    assert job.wait(1) == 0, job.said(1)
    assert "tiny/full/checkpoint-12" in [version.name for version in elsewhere.list("tiny")]
    assert job.pods[0].poll() == 0, "a pod that ended before another is kept, with its log"


@pytest.mark.usefixtures("forked_programs")
@pytest.mark.parametrize("run", ["elastic", "elastic-apart"])
def test_a_lost_node_is_replaced_and_the_run_ends_as_if_nothing_had_been(
    full: Run, shop: Shop, tmp_path: Path, stack: ExitStack, run: str
) -> None:
    config = shop.config(run, run=run, nproc_per_node=1)
    job = stack.enter_context(Job(config, tmp_path, elastic(free_port()), apart="apart" in run))
    job.start(0)
    job.start(1)
    job.lose(1, shop.store)
    job.start(1)

    assert (job.wait(0), job.wait(1)) == (0, 0), job.said(0) + job.said(1)
    assert any(same_as(full, job.output(node)) for node in job.pods)
    assert published(shop, run) == [f"tiny/{run}/checkpoint-{step}" for step in (3, 6, 9, 12)]


@pytest.mark.usefixtures("forked_programs")
@pytest.mark.parametrize("run", ["fewer", "fewer-apart"])
def test_a_lost_node_is_not_waited_for_where_fewer_will_do(
    full: Run, shop: Shop, tmp_path: Path, stack: ExitStack, run: str
) -> None:
    config = shop.config(run, run=run, nproc_per_node=1)
    job = stack.enter_context(Job(config, tmp_path, elastic(free_port(), "1:2"), apart="apart" in run))
    job.start(1)
    job.start(0)
    job.lose(1, shop.store)

    assert job.wait(0) == 0, job.said(0)
    losses = [[step.loss for step in read_log(folder)] for folder in (job.output(0), full.output)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert "is converted" in (job.output(0) / "train.log").read_text()
    assert published(shop, run) == [f"tiny/{run}/checkpoint-{step}" for step in (3, 6, 9, 12)]


@pytest.mark.usefixtures("forked_programs")
def test_a_killed_rank_is_started_again_within_the_same_run(
    full: Run, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = shop.config("restarted", run="restarted")
    output = Path(config.output_dir)
    monkeypatch.setenv("PET_MAX_RESTARTS", "1")
    killed: list[int] = []

    def kill_a_rank(news: Progress | ModelVersion) -> None:
        if isinstance(news, ModelVersion) and not killed:
            killed.extend(ranks_of(output, "1"))
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    versions = train(config, kill_a_rank)

    assert killed
    assert [version.name for version in versions] == [f"tiny/restarted/checkpoint-{step}" for step in (3, 6, 9, 12)]
    assert same_as(full, output)


def published(shop: Shop, run: str) -> list[str]:
    return [version.name for version in versions_of(shop.store, "tiny", run)]


def same_as(run: Run, output: Path) -> bool:
    """Whether a run logged and made the same, to the last bit."""
    weights = [(folder / "checkpoint-12" / WEIGHTS).read_bytes() for folder in (run.output, output)]
    return losses_of(run.output) == losses_of(output) and weights[0] == weights[1]


def losses_of(output: Path) -> list[tuple[int, float | None]]:
    return [(step.current_steps, step.loss) for step in read_log(output)]
