"""Several nodes train one run: started as Kubeflow's training operator starts them, here all on loopback."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.processes import processes_about
from tests.unit.training.conftest import Run, Shop
from tunegate.processes import free_port
from tunegate.training import TrainConfig
from tunegate.training.log import read_log
from tunegate.training.nodes import Node, read_node


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
    """The pods of a job, as processes; each node has a cache of its own."""

    def __init__(self, config: TrainConfig, folder: Path, variables: Callable[[int], dict[str, str]]) -> None:
        self._config = config
        self._folder = folder
        self._variables = variables
        self.pods: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, node: int, **changes: str) -> None:
        settings = {name: getattr(self._config, name) for name in self._config.__struct_fields__}
        names = ("model_name_or_path", "dataset_dir", "output_dir", "model", "run", "finetuning_type", "store")
        names += ("per_device_train_batch_size", "learning_rate", "num_train_epochs", "logging_steps", "bf16")
        names += ("cutoff_len", "nproc_per_node")
        options = [word for name in names for word in (f"--{name}", str(changes.get(name, settings[name])))]
        argv = [sys.executable, "-m", "tunegate", "train", *options, "--dataset", "shop"]
        own = {"GLOO_SOCKET_IFNAME": "lo", "TUNEGATE_CACHE": str(self._folder / f"cache-{node}")}
        with (self._folder / f"pod-{node}.log").open("ab") as log:
            env = {**os.environ, **own, **self._variables(node)}
            self.pods[node] = subprocess.Popen(argv, env=env, stdout=log, stderr=subprocess.STDOUT)

    def wait(self, node: int) -> int:
        return self.pods[node].wait(200)

    def said(self, node: int) -> str:
        return (self._folder / f"pod-{node}.log").read_text()

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *_: object) -> None:
        for pod in self.pods.values():
            pod.kill()
            pod.wait()
        deadline = time.monotonic() + 60
        while processes_about(self._folder) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not processes_about(self._folder)


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


def elastic(port: int) -> Callable[[int], dict[str, str]]:
    """What an elastic one puts there; it names nobody's role, which two on one host could not tell."""

    def variables(node: int) -> dict[str, str]:
        meeting = {"PET_RDZV_BACKEND": "c10d", "PET_RDZV_ENDPOINT": f"localhost:{port}", "PET_RDZV_ID": "job"}
        role = {"PET_RDZV_CONF": f"is_host={node == 0}", "PET_NODE_RANK": str(node)}
        return {**meeting, **role, "PET_NNODES": "2:2", "PET_MAX_RESTARTS": "5"}

    return variables


def test_two_nodes_train_as_two_processes_do(full: Run, shop: Shop, tmp_path: Path, stack: ExitStack) -> None:
    config = shop.config("nodes", run="nodes", nproc_per_node=1)
    job = stack.enter_context(Job(config, tmp_path, fixed(free_port())))
    job.start(1)
    job.start(0)

    assert (job.wait(0), job.wait(1)) == (0, 0), job.said(0) + job.said(1)
    assert job.said(0).count("published tiny/nodes/checkpoint-") == 4
    assert "published" not in job.said(1)
    assert same_as(full, Path(config.output_dir))

    again = stack.enter_context(Job(config, tmp_path, fixed(free_port())))
    again.start(1)
    assert again.wait(1) == 0  # complete: nobody is waited for


def test_a_lost_node_is_replaced_and_the_run_ends_as_if_nothing_had_been(
    full: Run, shop: Shop, tmp_path: Path, stack: ExitStack
) -> None:
    config = shop.config("elastic", run="elastic", nproc_per_node=1)
    output = Path(config.output_dir)
    job = stack.enter_context(Job(config, tmp_path, elastic(free_port())))
    job.start(0)
    job.start(1)
    deadline = time.monotonic() + 120
    while not (output / "checkpoint-3" / "resume" / "complete.json").exists():
        assert time.monotonic() < deadline, job.said(0) + job.said(1)
        time.sleep(0.02)
    job.pods[1].kill()
    job.pods[1].wait()
    job.start(1)

    assert (job.wait(0), job.wait(1)) == (0, 0), job.said(0) + job.said(1)
    assert same_as(full, output)
    assert [one.name for one in shop.store.list("tiny") if one.run == "elastic"] == [
        f"tiny/elastic/checkpoint-{step}" for step in (3, 6, 9, 12)
    ]


def test_nodes_that_share_no_folder_are_told_so(shop: Shop, tmp_path: Path, stack: ExitStack) -> None:
    config = shop.config("apart", run="apart", nproc_per_node=1)
    job = stack.enter_context(Job(config, tmp_path, fixed(free_port())))
    job.start(0)
    job.start(1, output_dir=str(tmp_path / "elsewhere"))

    assert job.wait(1) == 1
    assert "is not the same folder on all nodes; mount one ReadWriteMany volume" in job.said(1)


def same_as(run: Run, output: Path) -> bool:
    """Whether a run logged and made the same, to the last bit."""
    losses = [[(step.current_steps, step.loss) for step in read_log(folder)] for folder in (run.output, output)]
    weights = [(folder / "checkpoint-12" / "model.safetensors").read_bytes() for folder in (run.output, output)]
    return losses[0] == losses[1] and weights[0] == weights[1]
