"""Pods of predictors are replaced under load, behind a gateway that hears of it two seconds late: no answer is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiohttp
import pytest

from tests.builders import make_cluster_policy
from tests.chart.rendering import Object, render
from tests.gateway import Gateway, run_gateway
from tests.unit.serving.standin import StandIn, run_engine
from tests.waiting import wait_for
from tunegate.api.versions import ModelVersion, Producer, Release
from tunegate.processes import answers, free_port
from tunegate.store import Store
from tunegate_operator import manifests
from tunegate_operator.config import Config

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]
LATE_SECONDS = 2.0  # as Traefik, which takes new endpoints up once in two seconds
REQUESTS, REPLACEMENTS, CLIENTS = 1000, 5, 8
POLICY = make_cluster_policy()


class Pods:
    """A Deployment of one replica, its kubelet, and the gateway's endpoints: a pod as the chart's runtime says it."""

    def __init__(self, version: ModelVersion, engine: StandIn, gateway: Gateway, folder: Path) -> None:
        (self.container,) = next(each for each in render() if each["kind"] == "ClusterServingRuntime")["spec"][
            "containers"
        ]
        config = Config(store="s3://models", evaluation_image="trainer")
        self.isvc = manifests.inference_service("shop", POLICY, "shop", version, config)
        self.version, self.engine, self.gateway, self.folder = version, engine, gateway, folder
        self.kubelet = ThreadPoolExecutor(REPLACEMENTS + 1)
        self.exit_codes: list[int] = []

    def start(self) -> tuple[subprocess.Popen[bytes], str]:
        """A pod that is ready."""
        port = free_port()
        words = ["serve", self.version.name, "--engine-url", self.engine.url, "--port", str(port)]
        given = {each["name"]: each["value"] for each in self.container["env"] if each["name"].startswith("TUNEGATE_G")}
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tunegate", *words], env={**os.environ, **given}, stdout=log, stderr=log
            )
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: answers(f"{url}/v2/health/ready"), what="the server to be ready")
        return process, url

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """As a kubelet does: preStop, SIGTERM, and SIGKILL when the pod's grace is over."""
        grace = self.isvc["spec"]["predictor"]["terminationGracePeriodSeconds"]
        pause = self.container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)

        def run() -> None:
            threading.Event().wait(pause)
            process.send_signal(signal.SIGTERM)
            try:
                self.exit_codes.append(process.wait(grace - pause))
            except subprocess.TimeoutExpired:
                process.kill()
                self.exit_codes.append(process.wait())

        self.kubelet.submit(run)


class Clients:
    """Eight clients who ask one question after the other, each second answer as a stream."""

    def __init__(self, url: str) -> None:
        self.url = f"{url}/v1/chat/completions"
        self.failures: list[str] = []
        self.answered = 0
        self.stop = threading.Event()

    def run(self) -> None:
        asyncio.run(self._all())

    async def _all(self) -> None:
        async with aiohttp.ClientSession() as session:
            await asyncio.gather(self._ask(session, "go on"), *(self._keep_asking(session) for _ in range(CLIENTS)))

    async def _keep_asking(self, session: aiohttp.ClientSession) -> None:
        for number in range(sys.maxsize):
            if self.stop.is_set():
                return
            await self._ask(session, "Price?", stream=number % 2 == 0)
            await asyncio.sleep(0.05)

    async def _ask(self, session: aiohttp.ClientSession, question: str, stream: bool = True) -> None:
        body = {"model": "shop", "stream": stream, "messages": [{"role": "user", "content": question}]}
        text = ""
        try:
            async with session.post(self.url, json=body) as reply:
                text = await reply.text()
                whole = reply.status == 200 and (not stream or text.endswith("data: [DONE]\n\n"))
        except aiohttp.ClientError as error:
            whole, text = False, repr(error)
        self.answered += whole
        if not whole:
            self.failures.append(f"{question}: {text[-200:]}")


@pytest.fixture
def version(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelVersion:
    monkeypatch.setenv("TUNEGATE_FEEDBACK_KEY", "5e" * 32)
    monkeypatch.setenv("TUNEGATE_CACHE", str(tmp_path / "cache"))
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "config.json").write_text("{}")
    release = Release(format="huggingface")
    return store.publish(weights, "shop/base/checkpoint-0", release=release, producer=Producer(kind="test"))


@contextlib.contextmanager
def asking(clients: Clients) -> Iterator[None]:
    thread = threading.Thread(target=clients.run)
    thread.start()
    try:
        yield
    finally:
        clients.stop.set()
        thread.join()


@pytest.mark.usefixtures("forked_programs")
def test_five_replacements_cost_no_answer(version: ModelVersion, tmp_path: Path) -> None:
    backends: Object = manifests.http_route("shop", POLICY, "shop", {version.digest: 100})
    (service,) = [ref["name"] for ref in backends["spec"]["rules"][0]["backendRefs"]]
    with run_engine() as engine, run_gateway(backends) as gateway:
        pods = Pods(version, engine, gateway, tmp_path)
        process, url = pods.start()
        gateway.serve_from({service: [url]})
        clients = Clients(gateway.url)
        with asking(clients):
            wait_for(lambda: clients.answered, what="a first answer")
            for number in range(REPLACEMENTS):
                old, (process, url) = process, pods.start()
                gateway.serve_from({service: [url]}, after=LATE_SECONDS)
                pods.end(old)
                if number == 1:
                    engine.go_on.set()  # what began before the first replacement ends now
            wait_for(lambda: len(pods.exit_codes) == REPLACEMENTS, what="the old pods to end")
            wait_for(lambda: clients.answered + len(clients.failures) >= REQUESTS, what="the requests")
        pods.end(process)
        pods.kubelet.shutdown()
    assert clients.failures == []
    assert pods.exit_codes == [0] * (REPLACEMENTS + 1)
