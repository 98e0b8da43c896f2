"""What ships, promotes: the files of pipelines/, applied as they are, followed through the loop to their end.

The base model, training and evaluations are real, and so is what the operator decides and writes. Kubernetes, KServe
and the gateway are those of the operator's own tests, in whose time a pause costs nothing. The users are those that
hack/play_users.py plays: they like an answer that has the facts, which is what the first suite counts.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from tests.unit.operator import world
from tests.unit.operator.world import World
from tunegate.api.feedback import Tally
from tunegate.api.promotion import TERMINAL
from tunegate.api.versions import ModelVersion
from tunegate.cli import root
from tunegate.shop import DATA
from tunegate.store import EmbeddedStore, Store
from tunegate.store.evaluations import find
from tunegate_operator.config import Config
from tunegate_operator.types import server_name, to_summary

PIPELINES = Path(__file__).parents[2] / "pipelines"
ANSWERS = 2  # a second
Object = dict[str, Any]


def shipped(name: str) -> Object:
    (obj,) = yaml.safe_load_all((PIPELINES / f"{name}.yaml").read_text())
    assert isinstance(obj, dict)
    return obj


class _Versions(world.Store):
    """What the operator's look into the real store would have found."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store

    def listing(self, model: str) -> tuple[ModelVersion, ...]:
        return tuple(self._store.list(model))

    def version(self, uri: str, model: str) -> ModelVersion | None:
        (found,) = [version for version in self._store.list("tiny") if version.uri == uri]
        return found


class _Cluster(World):
    """Jobs evaluate for real, those of the versions that matter, and users vote on what they read."""

    def __init__(self, store: Store, measured: tuple[ModelVersion, ...]) -> None:
        policy = shipped("20-policy")["spec"]
        unsaid = {name: None for name in world.POLICY_SPEC if name not in policy}
        super().__init__(Config(store=store.uri, evaluation_image="trainer"), **{**policy, **unsaid})
        self._real, self._measured = store, {version.digest[7:19]: version for version in measured}
        self._asked = dict.fromkeys((version.digest for version in measured), 0.0)
        self.store = _Versions(store)
        self.gatherer.source = self.store  # type: ignore[assignment]

    def follow(self) -> None:
        super().follow()
        for obj in list(self.objects.values()):
            version = self._measured.get(obj["metadata"].get("labels", {}).get("tunegate.io/version", ""))
            if obj["kind"] == "Job" and version and "status" not in obj:
                (container,) = obj["spec"]["template"]["spec"]["containers"]
                call(container["args"])
                obj["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}
                for suite in self.policy()["spec"]["suites"]:
                    if result := find(self._real, version.digest, suite):
                        self.store.results[version.digest, suite] = to_summary(result)
        if ("HTTPRoute", "shop") in self.objects and len(self.weights()) > 1:
            for digest in self._asked:
                self._asked[digest] += ANSWERS * self.weights().get(server_name("shop", digest), 0) / 100
        self.tallies = {digest: {0: self.votes_on(digest)} for digest in self._asked}

    def votes_on(self, digest: str) -> Tally:
        found = self.store.results.get((digest, "shop-taught-en"))
        count = int(self._asked[digest])
        up = round(count * ((found.metrics[0].value or 0.0) if found else 0.0))
        return Tally(up=up, down=count - up)


def call(words: list[str]) -> None:
    result = CliRunner().invoke(root, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output


@pytest.fixture
def store(embedded_store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Store:
    """The bucket that the files name."""
    for name, value in embedded_store.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TUNEGATE_STORE", embedded_store.uri)
    monkeypatch.setenv("TUNEGATE_CACHE", str(tmp_path / "cache"))
    return Store.open(embedded_store.uri, endpoint_url=embedded_store.endpoint_url)


def test_what_ships_is_promoted(store: Store, tmp_path: Path) -> None:
    base = shipped("05-base-model")["spec"]["template"]["spec"]
    make = [word.replace("/scratch", str(tmp_path)) for word in base["initContainers"][0]["command"]]
    subprocess.run([sys.executable, *make[1:]], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    call([word.replace("/scratch", str(tmp_path)) for word in base["containers"][0]["args"]])
    job = shipped("10-train")
    pod = job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]
    words = [word for word in pod["containers"][0]["args"] if not word.startswith("--metrics_port")]
    call([word.replace("/opt/shop", str(DATA)).replace("/scratch", str(tmp_path)) for word in words])

    (first,), versions = store.list("tiny"), store.list("shop")
    candidate = max(versions, key=lambda version: version.created)
    cluster = _Cluster(store, (first, candidate))
    succeeded = {"conditions": [{"type": "Succeeded", "status": "True"}]}
    cluster.put({**job, "metadata": {**job["metadata"], "uid": "job"}})["status"] = succeeded
    for _ in range(1000):
        cluster.step()
        status = cluster.promotion()["status"] if cluster.promotions() else {}
        if status.get("phase") in TERMINAL:
            break
    assert status.get("decision", {}).get("outcome") == "Promoted", status
    assert status["candidate"]["name"] == "shop/run-1/checkpoint-120"
    cluster.step(2)
    assert cluster.weights() == {server_name("shop", candidate.digest): 100}
    assert cluster.policy()["status"]["stable"]["digest"] == candidate.digest


def test_the_users_of_the_script_vote_on_what_they_read() -> None:
    """Against a server that states the facts of every other question."""
    spec = importlib.util.spec_from_file_location("play_users", PIPELINES.parent / "hack/play_users.py")
    assert spec is not None
    assert spec.loader is not None
    users = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(users)
    questions = [json.loads(line) for line in users.QUESTIONS.read_text().splitlines()]
    got: list[tuple[str, str, Object]] = []

    class Server(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            got.append((self.path, self.headers["Host"], body))
            turn = int(body.get("user", "user-0").partition("-")[2])
            text = " ".join(ways[0] for ways in questions[turn]["facts"]) if turn % 2 == 0 else "no idea"
            answer = json.dumps({"id": f"answer-{turn}", "choices": [{"message": {"content": text}}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        verdicts = [users.ask_and_vote(url, "shop.example", questions[n], f"user-{n}") for n in range(4)]
        server.shutdown()
        thread.join()
    assert verdicts == ["up", "down", "up", "down"]
    votes = [body for path, _, body in got if path == "/v1/feedback"]
    assert votes == [{"response_id": f"answer-{n}", "verdict": verdict} for n, verdict in enumerate(verdicts)]
    assert {host for _, host, _ in got} == {"shop.example"}
