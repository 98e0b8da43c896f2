"""The operator as a process: flags, probes, signals, and replicas that hand over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.apiserver import ApiServer
from tests.waiting import wait_for
from tunegate.kube.client import Cluster
from tunegate.kube.kinds import LEASE
from tunegate.processes import free_port
from tunegate_operator.types import MANAGER

WORDS = [sys.executable, "-m", "tunegate_operator"]
FLAGS = ["--store", "s3://nowhere", "--evaluation-image", "trainer", "--metrics-host", "127.0.0.1"]


class Operator:
    """A process of its own, and what it logged."""

    def __init__(self, kubeconfig: Path, namespace: str, log: Path, *flags: str) -> None:
        self.address = f"http://127.0.0.1:{free_port()}"
        self._log = log
        port = self.address.rpartition(":")[2]
        environment = {
            **{name: value for name, value in os.environ.items() if name != "KUBERNETES_SERVICE_HOST"},
            "KUBECONFIG": str(kubeconfig),
            "POD_NAMESPACE": namespace,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}",
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "very-secret",
        }
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [*WORDS, *FLAGS, "--metrics-port", port, "--namespace", namespace, *flags],
                stderr=output,
                env=environment,
            )

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(self.address + path, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, ""
        except OSError:
            assert self.process.poll() is None, self._log.read_text()
            return 0, ""

    def is_ready(self) -> bool:
        return self.get("/readyz")[0] == 200

    def leads(self) -> bool:
        return "\ntunegate_operator_leader 1.0" in self.get("/metrics")[1]

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(100)


Start = Callable[..., Operator]


@pytest.fixture
def operator(api_server: ApiServer, namespace: str, tmp_path: Path) -> Iterator[Start]:
    started: list[Operator] = []

    def start(*flags: str, kubeconfig: Path = api_server.kubeconfig) -> Operator:
        log = tmp_path / f"operator-{len(started)}.log"
        started.append(Operator(kubeconfig, namespace, log, *flags))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.wait()


def test_help_needs_no_cluster_and_loads_nothing_heavy() -> None:
    code = (
        "import sys, tunegate_operator.__main__ as m\n"
        "try: m.command(['--help'])\n"
        "except SystemExit: pass\n"
        "print('loaded:', sorted({'kubernetes', 'boto3', 'prometheus_client', 'urllib3'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--evaluation-image" in done.stdout
    assert done.stdout.endswith("loaded: []\n")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        pytest.param([], "--store", id="no-store"),
        pytest.param(["--store", "s3://x"], "--evaluation-image", id="no-image"),
        pytest.param(FLAGS, "Give --lease-namespace, or --no-lease", id="no-lease"),
        pytest.param([*FLAGS, "--no-lease"], "set KUBECONFIG", id="no-cluster"),
    ],
)
def test_what_is_missing_is_named(flags: list[str], said: str, tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "KUBECONFIG": str(tmp_path / "none"), "HOME": str(tmp_path)}
    done = subprocess.run([*WORDS, *flags], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2
    assert said in done.stderr


def test_a_single_replica_works_and_ends_when_told(operator: Start) -> None:
    single = operator("--no-lease")
    wait_for(single.leads)
    assert single.is_ready()
    assert single.get("/healthz")[0] == 200
    assert single.get("/elsewhere")[0] == 404
    assert "tunegate_operator_queue_depth 0.0" in single.get("/metrics")[1]
    assert single.end(signal.SIGTERM) == 0
    assert {"time", "level", "logger", "message"} <= single.records()[0].keys()
    assert not [record for record in single.records() if record["level"] in ("error", "critical")]


def test_a_replica_that_stands_by_is_ready_and_takes_over_when_the_other_is_told_to_end(
    operator: Start, cluster: Cluster, namespace: str
) -> None:
    first = operator()
    wait_for(first.leads)
    second = operator()
    wait_for(second.is_ready)
    assert not second.leads()
    assert first.end(signal.SIGTERM) == 0
    wait_for(second.leads)
    assert second.end(signal.SIGINT) == 0
    lease = cluster.get(LEASE, namespace, MANAGER)
    assert lease
    assert not lease["spec"]["holderIdentity"]


def test_a_replica_takes_over_when_the_other_is_killed_or_frozen(operator: Start) -> None:
    first, second = operator(), operator()
    wait_for(lambda: first.leads() or second.leads())
    leader, other = (first, second) if first.leads() else (second, first)
    wait_for(other.is_ready)
    leader.process.send_signal(signal.SIGSTOP)
    wait_for(other.leads)
    leader.process.send_signal(signal.SIGCONT)
    assert leader.process.wait(100) == 1, "it must not act beside the new leader"
    third = operator()
    wait_for(third.is_ready)
    assert other.end(signal.SIGKILL) != 0
    wait_for(third.leads)


def test_a_cluster_that_refuses_is_not_ready_and_says_which_permission_is_missing(
    operator: Start, api_server: ApiServer, namespace: str, tmp_path: Path
) -> None:
    refused = operator("--no-lease", kubeconfig=api_server.kubeconfig_as(namespace, "nobody", tmp_path))
    wait_for(lambda: any("cannot list resource" in record["message"] for record in refused.records()))
    assert refused.get("/readyz")[0] == 503
    assert refused.get("/healthz")[0] == 200
    assert refused.end(signal.SIGTERM) == 0
