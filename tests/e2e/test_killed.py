"""A platform that is killed in every phase of a promotion comes to the same end as one that is not.

The engine is a stand-in, because killing is not about words; everything else is real: store, servers, proxy,
feedback, records.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.builders import make_cluster_policy, make_evaluation
from tests.processes import processes_about
from tunegate.api.policy import ClusterPolicy, write_policy_file
from tunegate.api.promotion import TERMINAL, Promotion
from tunegate.api.versions import ModelVersion, Producer, Release
from tunegate.local.state import Home, write
from tunegate.processes import free_port
from tunegate.store import EmbeddedStore, Store
from tunegate.store.evaluations import save

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]
SUITE = "quality"


class Engine(BaseHTTPRequestHandler):
    """Says yes to everything, in OpenAI's form, for the models that it has by name."""

    protocol_version = "HTTP/1.1"
    models = ("base-checkpoint-0", "run-1-checkpoint-1")

    def do_GET(self) -> None:
        self._answer({"status": "ok"})

    def do_POST(self) -> None:
        model = json.loads(self.rfile.read(int(self.headers["content-length"])))["model"]
        if model not in self.models:
            self._answer({"error": {"message": f"There is no {model}."}}, 404)
            return
        message = {"role": "assistant", "content": "Yes."}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        self._answer({"id": self.headers.get("x-request-id", ""), "object": "chat.completion", "choices": [choice]})

    def _answer(self, body: object, status: int = 200) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def engine_url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Engine)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class Machine:
    """A platform as a person runs it, and users who like or dislike whatever the candidate says."""

    def __init__(self, folder: Path, engine_url: str, candidate_is_liked: bool) -> None:
        self.home = Home(folder)
        self.port = free_port()
        self.engine_url = engine_url
        self.candidate_is_liked = candidate_is_liked
        self.candidate = self._publish(folder)
        self._stop = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None

    def _publish(self, folder: Path) -> ModelVersion:
        """Two versions that are measured already, and a policy under which the second is to be tried."""
        with EmbeddedStore.start(self.home.store) as embedded, environment(embedded.environment):
            store = Store.open(embedded.uri, endpoint_url=embedded.endpoint_url)
            release, producer = Release(format="huggingface"), Producer(kind="test")
            versions = []
            for name in ("base/base/checkpoint-0", "shop/run-1/checkpoint-1"):
                weights = folder / "weights" / name
                weights.mkdir(parents=True)
                (weights / "config.json").write_text(json.dumps({"name": name}))
                versions.append(store.publish(weights, name, release=release, producer=producer))
            save(store, make_evaluation(versions[1], SUITE, score=0.9))
            save(store, make_evaluation(versions[0], SUITE, score=0.1))
        write(self.home.policy_file, write_policy_file(self._policy(versions[0].uri)))
        return versions[1]

    def _policy(self, initial: str) -> ClusterPolicy:
        url = {"address": self.engine_url, "model": "{run}-{checkpoint}"}
        return make_cluster_policy(
            initialVersion=initial,
            steps=[{"weight": 20, "minVerdicts": 2}, {"weight": 50, "minVerdicts": 5}],
            feedback={"alpha": 0.05, "margin": 0.3, "minVerdicts": 5},
            bakingSeconds=2,
            serving={"engine": "URL", "url": url},
        )

    def start(self) -> None:
        argv = ["local", "up", "--home", str(self.home.folder), "--port", str(self.port)]
        with (self.home.folder / "platform.log").open("ab") as log:
            self._process = subprocess.Popen([sys.executable, "-m", "tunegate", *argv], stdout=log, stderr=log)

    def kill(self) -> None:
        assert self._process
        self._process.kill()
        self._process.wait()
        until(lambda: not processes_about(self.home.folder), "its processes to go")

    def stop(self) -> int:
        assert self._process
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(120)

    def records(self) -> tuple[Promotion, ...]:
        return self.home.promotions()

    def phase(self) -> str:
        return self.records()[0].status.phase if self.records() else ""

    @contextlib.contextmanager
    def users(self) -> Iterator[None]:
        users = threading.Thread(target=self._use)
        users.start()
        try:
            yield
        finally:
            self._stop.set()
            users.join()

    def _use(self) -> None:
        for turn in range(sys.maxsize):
            if self._stop.is_set():
                return
            try:
                self._ask_and_vote(turn)
            except (OSError, http.client.HTTPException, ValueError):
                self._stop.wait(0.1)  # killed just now; users come back

    def _ask_and_vote(self, turn: int) -> None:
        body = {"model": "shop", "messages": [{"role": "user", "content": "Is it blue?"}]}
        answer, headers = self._post("chat/completions", body, {"x-conversation-id": str(turn)})
        is_candidate = headers["x-tunegate-version"] == self.candidate.digest
        verdict = "down" if is_candidate and not self.candidate_is_liked else "up"
        self._post("feedback", {"response_id": answer["id"], "verdict": verdict})

    def _post(self, path: str, body: object, headers: dict[str, str] | None = None) -> tuple[dict[str, str], object]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/{path}",
            data=json.dumps(body).encode(),
            headers={"content-type": "application/json", **(headers or {})},
        )
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply), reply.headers


@contextlib.contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        yield


def until(condition: Callable[[], object], what: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.005)  # a phase may pass in a moment


@pytest.mark.usefixtures("forked_programs")
@pytest.mark.parametrize(
    ("liked", "phases", "outcome"),
    [
        pytest.param(
            True,
            ["Verifying", "Evaluating", "Progressing", "Paused", "Promoting", "Baking", "Succeeded"],
            "Promoted",
            id="promoted",
        ),
        pytest.param(
            False,
            ["Verifying", "Evaluating", "Progressing", "Paused", "RollingBack", "RolledBack"],
            "RolledBack",
            id="rolled-back",
        ),
    ],
)
def test_a_platform_killed_in_every_phase_comes_to_the_same_end(
    tmp_path: Path, engine_url: str, liked: bool, phases: list[str], outcome: str
) -> None:
    machine = Machine(tmp_path / "home", engine_url, liked)
    killed_in: list[str] = []
    machine.start()
    with machine.users():
        while machine.phase() not in TERMINAL:
            until(lambda: machine.phase() not in ("", *killed_in), f"a phase after {killed_in}")
            if (phase := machine.phase()) not in TERMINAL:
                killed_in.append(phase)
                machine.kill()
                machine.start()
    assert machine.stop() == 0
    assert not processes_about(machine.home.folder)

    assert len(machine.records()) == 1, "one version, one attempt"
    status = machine.records()[0].status
    assert status.decision is not None
    assert status.decision.outcome == outcome
    assert status.vouched_for_by == f"whoever runs {engine_url}"
    seen = [step.phase for step in status.history]
    assert list(dict.fromkeys(seen)) == phases
    assert seen.count(phases[-1]) == 1
    assert set(killed_in) >= {"Progressing", "Paused"}, "else this test would have shown nothing"


@pytest.mark.usefixtures("forked_programs")
def test_a_stopped_platform_goes_on_serving_what_it_promoted(tmp_path: Path, engine_url: str) -> None:
    machine = Machine(tmp_path / "home", engine_url, candidate_is_liked=True)
    machine.start()
    with machine.users():
        until(lambda: machine.phase() == "Succeeded", "the promotion")
    assert machine.stop() == 0
    records = machine.records()
    machine.start()
    serving: list[str] = []

    def answers() -> bool:
        try:
            _, headers = machine._post(
                "chat/completions", {"model": "shop", "messages": [{"role": "user", "content": "?"}]}
            )
        except (OSError, http.client.HTTPException):
            return False
        serving.append(headers["x-tunegate-version"])  # type: ignore[index]
        return True

    until(answers, "an answer")
    assert serving == [machine.candidate.digest]
    assert machine.stop() == 0
    assert machine.records() == records


def test_a_port_in_use_is_one_sentence(tmp_path: Path, engine_url: str) -> None:
    home = Home(tmp_path / "home")
    write(home.policy_file, write_policy_file(make_cluster_policy()))
    port = engine_url.rsplit(":", 1)[1]
    argv = [sys.executable, "-m", "tunegate", "local", "up", "--home", str(home.folder), "--port", port]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert done.stderr.startswith(f"tunegate: Port {port} can't be used")
    assert len(done.stderr.strip().splitlines()) == 1
    assert not processes_about(home.folder)


def test_ctrl_c_while_training_leaves_nothing(tmp_path: Path) -> None:
    """At whatever moment: here while a quickstart trains, its busiest one."""
    home = tmp_path / "home"
    argv = [sys.executable, "-m", "tunegate", "quickstart", "--base", "tiny", "--home", str(home)]
    with (tmp_path / "log").open("wb") as log:
        quickstart = subprocess.Popen(
            [*argv, "--output", str(tmp_path / "q.json")], stdout=log, stderr=log, start_new_session=True
        )
        until(lambda: "step " in (tmp_path / "log").read_text(), "a training step")
        os.killpg(quickstart.pid, signal.SIGINT)
        quickstart.wait(120)
    assert quickstart.returncode not in (0, -signal.SIGKILL)
    assert not processes_about(home)
    with EmbeddedStore.start(home / "store") as embedded, environment(embedded.environment):
        store = Store.open(embedded.uri, endpoint_url=embedded.endpoint_url)
        for version in store.list():
            store.verify(version.uri)
