"""Folders to publish, and what stands before a store: a TCP proxy that counts and cuts, an HTTP one that answers."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.store.picky import PickyStore, picky_store
from tunegate.store import EmbeddedStore, Store, client

MIB = 1 << 20


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder as a small model has it: nested files, an empty one, one of a few MiB."""
    folder = tmp_path / "model"
    (folder / "resume" / "zero").mkdir(parents=True)
    (folder / "config.json").write_text('{"architectures": []}')
    (folder / "model.safetensors").write_bytes(os.urandom(3 * MIB + 5))
    (folder / "added_tokens.json").touch()
    (folder / "resume" / "zero" / "rank-0.pt").write_bytes(os.urandom(1000))
    return folder


class Proxy:
    """Passes connections on to a port; `cut` says for each chunk towards the client whether to cut there."""

    def __init__(self, port: int) -> None:
        self.sent = 0  # bytes towards the store
        self.received = 0
        self.connections = 0
        self.cut: Callable[[Proxy], bool] = lambda proxy: False
        self._to = ("127.0.0.1", port)
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._accept)
        self._threads: list[threading.Thread] = []
        self._thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._to)
                with self._lock:
                    self.connections += 1
                    self._open |= {client, server}
                for source, target, counts in ((client, server, True), (server, client, False)):
                    self._threads.append(threading.Thread(target=self._pump, args=(source, target, counts)))
                    self._threads[-1].start()

    def _pump(self, source: socket.socket, target: socket.socket, upwards: bool) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(1 << 16):
                with self._lock:
                    self.sent += len(chunk) if upwards else 0
                    self.received += 0 if upwards else len(chunk)
                    if self.cut(self):
                        break
                target.sendall(chunk)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for end in self._open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for end in self._open:
            end.close()


@pytest.fixture
def proxy(embedded_store: EmbeddedStore) -> Iterator[Proxy]:
    proxy = Proxy(int(embedded_store.endpoint_url.rpartition(":")[2]))
    yield proxy
    proxy.close()


@pytest.fixture
def proxied(store: Store, proxy: Proxy) -> Store:
    """The same store, reached through the proxy."""
    return Store.open(store.uri, endpoint_url=proxy.url)


@pytest.fixture
def front(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[PickyStore]:
    """What stands before the store and answers in its place; nobody pauses for long."""
    monkeypatch.setattr(client, "_LONGEST_PAUSE", 0.01)
    with picky_store(store.endpoint_url or "") as front:
        yield front


@pytest.fixture
def fronted(store: Store, front: PickyStore) -> Store:
    """The same store, reached through what stands before it."""
    return Store.open(store.uri, endpoint_url=front.url)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One to publish, of one file in two parts."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(os.urandom(11 * MIB))
    return tmp_path / "model"
