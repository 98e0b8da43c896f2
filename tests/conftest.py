"""What several packages' tests share: a real model store and a real Kubernetes API, both on loopback."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator

import pytest

from tests.apiserver import api_server, foreign_crds, namespace, tunegate_crds  # noqa: F401 (fixtures)
from tunegate.store import EmbeddedStore, Store

# Shells start what runs in the background deaf to Ctrl-C, and those that tests start and interrupt would inherit it.
signal.signal(signal.SIGINT, signal.default_int_handler)

_FRESH = itertools.count()


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
