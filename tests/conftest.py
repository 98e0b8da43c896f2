"""What several packages' tests share: a real model store, a real Kubernetes API, and programs that are forked."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Generator, Iterator
from http.server import BaseHTTPRequestHandler

import pytest

from tests.answering import listening
from tests.apiserver import api_server, client, foreign_crds, namespace, tunegate_crds  # noqa: F401 (fixtures)
from tests.forking import Forking, forking
from tunegate.garbage import lasting_imports
from tunegate.store import EmbeddedStore, Store

# Shells start what runs in the background deaf to Ctrl-C, and those that tests start and interrupt would inherit it.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Models of tests are so small that a second thread only waits for the first. Torch reads this as it is imported, here
# and in what tests start; and accelerate warns ranks that share a machine and don't say how many threads they may have.
os.environ.setdefault("OMP_NUM_THREADS", "1")

_FRESH = itertools.count()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What tests import stays: looking through all of it at each collection of garbage took a tenth of their time."""
    with lasting_imports():
        return (yield)


@pytest.fixture(scope="session")
def embedded_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStore]:
    """SeaweedFS in a folder of its own, shared by the tests of this run."""
    with EmbeddedStore.start(tmp_path_factory.mktemp("store")) as running:
        yield running


@pytest.fixture
def store(embedded_store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty store: a prefix of its own; the environment names it, as it would for a child process."""
    for name, value in embedded_store.environment.items():
        monkeypatch.setenv(name, value)
    uri = f"{embedded_store.uri}/test-{next(_FRESH)}"
    monkeypatch.setenv("TUNEGATE_STORE", uri)
    return Store.open(uri, endpoint_url=embedded_store.endpoint_url)


@pytest.fixture(scope="session")
def forking_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forking]:
    with forking(tmp_path_factory.mktemp("forking")) as running:
        yield running


@pytest.fixture
def forked_programs(forking_process: Forking) -> Iterator[None]:
    """Programs of ours that import torch, and those that they start, are forked from one process that has it."""
    with forking_process.instead():
        yield


@pytest.fixture
def dead_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment names a proxy, as a company's does, and nobody listens there."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        for spelled in (name, name.lower()):
            monkeypatch.setenv(spelled, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def web_proxy() -> Iterator[list[str]]:
    """A server that answers 200 to whatever it is asked, as a proxy would: its URL, then what it was asked for."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.send_header("ETag", '"empty"')
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with listening(Handler) as url:
        asked = [url]
        yield asked
