"""A cluster is reached once the message's words were followed: in front of a server that answers as one does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import yaml

from tests.answering import listening
from tests.refusals import refused, without_story
from tunegate.kube.client import Cluster, connect
from tunegate.kube.kinds import LEASE
from tunegate.processes import free_port


@pytest.fixture
def answering() -> Iterator[str]:
    """The URL of a server that has the Lease `shop`, and a web page below /page."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            lease = {"kind": "Lease", "metadata": {"name": "shop"}}
            body = b"<html>" if self.path.startswith("/page/") else json.dumps(lease).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with listening(Handler) as url:
        yield url


@pytest.fixture
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where KUBECONFIG points to; nothing is there yet."""
    path = tmp_path / "kubeconfig"
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))  # read at its import
    return path


def name_server(kubeconfig: Path, url: str) -> None:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "shop", "cluster": {"server": url}}],
        "users": [{"name": "anna", "user": {"token": "t"}}],
        "contexts": [{"name": "shop", "context": {"cluster": "shop", "user": "anna"}}],
        "current-context": "shop",
    }
    kubeconfig.write_text(yaml.safe_dump(config))


def ask() -> str:
    """The name of what the cluster has."""
    with connect("tests/1", remedy="set KUBECONFIG") as client:
        lease = Cluster(client, manager="tests", timeout=5).get(LEASE, "default", "shop")
    return str(lease["metadata"]["name"])


def test_the_cluster_that_a_kubeconfig_names_is_asked(kubeconfig: Path, answering: str) -> None:
    with refused("There is no cluster to speak to (") as caught:
        ask()
    assert str(caught.value).endswith("; set KUBECONFIG.")
    name_server(kubeconfig, answering)
    assert ask() == "shop"


def test_an_api_server_is_reached_where_the_kubeconfig_is_right(kubeconfig: Path, answering: str) -> None:
    """Commands add to both messages: check your kubeconfig."""
    name_server(kubeconfig, f"http://127.0.0.1:{free_port()}")
    with refused("The API server can't be reached: "):
        ask()
    name_server(kubeconfig, f"{answering}/page")
    with refused("something answered that is no API server ("):
        ask()
    name_server(kubeconfig, answering)
    assert ask() == "shop"


# What watches do by themselves, on a real API server.
ELSEWHERE = {
    "A watch broke off: ": "test_watch.py::test_what_happened_after_kill_9_of_the_api_server_is_caught_up_with"
}


def test_every_message_has_its_story() -> None:
    assert without_story("kube", Path(__file__)) == []
    for test in ELSEWHERE.values():
        path, _, name = test.partition("::")
        assert f"\ndef {name}(" in (Path(__file__).parents[2] / "kube" / path).read_text()
