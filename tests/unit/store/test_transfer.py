"""Connections that break in the middle of a body cost a retry and never a byte."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from tunegate.api.errors import DigestError, StoreError
from tunegate.api.versions import Manifest, ModelVersion, Producer, Release
from tunegate.store import Store, client, sha256, transfer
from tunegate.store.bodies import Body
from tunegate.store.client import connect, parse_uri

from .conftest import MIB, Proxy
from .picky import Answer, picky_store

NAME = "tea/run/checkpoint-1"


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of several parts, with the smallest parts that S3 allows."""
    monkeypatch.setattr(transfer, "PART", 5 * MIB)
    folder = tmp_path / "large"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(os.urandom(23 * MIB + 1))
    return folder


def publish(store: Store, folder: Path) -> ModelVersion:
    return store.publish(folder, NAME, release=Release(format="huggingface"), producer=Producer(kind="test"))


def cut_each(mib: float, times: int) -> transfer.Callable[[Proxy], bool]:
    """Cut the connection whose chunk completes another so many MiB, in either direction."""
    done = 0

    def cut(proxy: Proxy) -> bool:
        nonlocal done
        if done < times and proxy.sent + proxy.received > (done + 1) * mib * MIB:
            done += 1
            return True
        return False

    return cut


@pytest.mark.parametrize("mib", [1.1, 3.7])
def test_publish_survives_connections_that_break(proxied: Store, proxy: Proxy, large: Path, mib: float) -> None:
    connections = proxy.connections
    proxy.cut = cut_each(mib, times=6)
    version = publish(proxied, large)
    assert proxy.connections > connections + 3
    assert proxied.verify(NAME).digest == version.digest


@pytest.fixture(params=["fast", "slow"])
def connection(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store within the machine is read by one connection a file; from a slow one the rest comes by several."""
    if request.param == "slow":
        monkeypatch.setattr(transfer, "is_loopback", lambda url: False)
        monkeypatch.setattr(transfer, "_FAST", 1 << 60)
        monkeypatch.setattr(transfer, "_TRIAL", 0)


@pytest.mark.usefixtures("connection")
@pytest.mark.parametrize("mib", [0.9, 4.3])
def test_fetch_survives_connections_that_break(
    store: Store, proxied: Store, proxy: Proxy, large: Path, tmp_path: Path, mib: float
) -> None:
    publish(store, large)
    proxy.cut = cut_each(mib, times=5)
    calls: list[int] = []
    proxied.fetch(NAME, tmp_path / "out", progress=lambda done, total: calls.append(done))
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (large / "model.safetensors").read_bytes()
    assert calls[-1] == store.manifest(NAME).size
    assert proxy.received < 1.5 * store.manifest(NAME).size


@pytest.fixture
def segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """As large a file as `large` is in five of them."""
    if sha256._LIBCRYPTO is None:
        pytest.skip("this Python's hashlib has no libcrypto of its own, so files are read as a whole")
    monkeypatch.setattr(sha256, "SEGMENT", 5 * MIB)


@pytest.mark.usefixtures("connection", "segments")
def test_segments_of_a_file_come_on_their_own_and_make_the_whole(
    store: Store, proxied: Store, proxy: Proxy, large: Path, tmp_path: Path
) -> None:
    publish(store, large)
    proxy.cut = cut_each(2.3, times=4)

    proxied.fetch(NAME, tmp_path / "out")

    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (large / "model.safetensors").read_bytes()
    assert proxied.verify(NAME).digest == store.manifest(NAME).digest


@pytest.mark.usefixtures("segments")
def test_a_file_has_its_states_however_it_came_into_the_store(
    store: Store, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def states(name: str, origin: Path | Manifest) -> tuple[str, ...]:
        store.publish(origin, name, release=Release(format="huggingface"), producer=Producer(kind="test"))
        return next(file.states for file in store.manifest(name).files if file.path == "model.safetensors")

    sent = states(NAME, large)
    assert len(sent) == 4
    assert states("tea/run/checkpoint-2", large) == sent  # copied in the store, since it is there
    assert states("tea/run/checkpoint-3", store.manifest(NAME)) == sent
    monkeypatch.setattr(sha256, "SEGMENT", 1 << 30)
    states("milk/run/checkpoint-1", large)  # as it was published before there were states
    assert store.manifest("milk/run/checkpoint-1").digest == store.manifest(NAME).digest
    assert b"states" not in (store.get("milk/run/checkpoint-1/manifest.json") or b"states")


@pytest.mark.usefixtures("segments")
@pytest.mark.parametrize("damage", ["byte", "state"])
def test_a_segment_that_leads_elsewhere_is_told_and_nothing_is_put_in_place(
    damage: str, store: Store, large: Path, tmp_path: Path
) -> None:
    publish(store, large)
    manifest = store.manifest(NAME)
    if damage == "byte":
        body = bytearray((large / "model.safetensors").read_bytes())
        body[12 * MIB] ^= 1
        store.put(f"{NAME}/model.safetensors", bytes(body))
    else:
        files = [
            msgspec.structs.replace(file, states=(file.states[0], file.sha256, *file.states[2:]))
            if file.states
            else file
            for file in manifest.files
        ]
        manifest = msgspec.structs.replace(manifest, files=tuple(files))

    with pytest.raises(DigestError, match=r"model.safetensors differs from its manifest"):
        store.fetch(manifest, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_fast_store_is_read_by_one_request_a_file_and_a_slow_one_by_parts(
    store: Store, large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(store, large)
    with picky_store(store.endpoint_url or "") as front:

        def requests(into: str) -> int:
            front.requests.clear()
            Store.open(store.uri, endpoint_url=front.url).fetch(NAME, tmp_path / into)
            return sum("safetensors" in request for request in front.requests)

        assert requests("fast") == 1
        monkeypatch.setattr(transfer, "is_loopback", lambda url: False)
        monkeypatch.setattr(transfer, "_FAST", 1 << 60)
        monkeypatch.setattr(transfer, "_TRIAL", 0)
        assert requests("slow") == 1 + 5


@pytest.mark.usefixtures("connection")
def test_a_gateway_that_ignores_ranges_sends_whole_files(
    store: Store, large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after a connection that broke."""
    monkeypatch.setattr(transfer, "_RANGE", 5 * MIB)
    publish(store, large)
    with picky_store(store.endpoint_url or "") as front:
        front.whole = True
        front.answers.append(Answer("GET .*safetensors", 200, cut=3 * MIB))
        Store.open(store.uri, endpoint_url=front.url).fetch(NAME, tmp_path / "out")
        assert sum("safetensors" in request for request in front.requests) == 3
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (large / "model.safetensors").read_bytes()


@pytest.mark.parametrize("size", [5, 1000, 20_000])
def test_bytes_that_came_with_the_headers_are_not_lost(size: int, store: Store) -> None:
    body = os.urandom(100_000)
    store.put("a", body)
    client, buffer = connect(parse_uri(store.uri), store.endpoint_url), memoryview(bytearray(size))
    for _ in range(2):  # the second answer comes by the connection of the first
        with Body(client.get_object(**store._bucket.place("a"))["Body"], len(body), "") as answer:
            assert bytes(answer.read_into(buffer)) + answer.read() == body


def test_store_that_stays_away_is_told(
    proxied: Store, proxy: Proxy, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PATIENCE_SECONDS", 0.3)
    proxy.cut = lambda proxy: proxy.sent > 6 * MIB
    with pytest.raises(StoreError, match="can't be reached"):
        publish(proxied, large)
    proxy.cut = lambda proxy: False
    assert proxied.list() == []
    publish(proxied, large)
    proxied.verify(NAME)


def test_damage_on_the_way_to_the_store_is_sent_again_or_refused(
    store: Store, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PATIENCE_SECONDS", 0.5)
    right = transfer._crc32
    monkeypatch.setattr(transfer, "_crc32", lambda body: right(body[:-1] + b"x"))
    with pytest.raises(StoreError, match="BadDigest"):
        publish(store, large)
    assert store.list() == []


def test_file_of_every_size_around_a_part_arrives_whole(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "PART", 5 * MIB)
    folder = tmp_path / "sizes"
    folder.mkdir()
    for size in (0, 1, 5 * MIB - 1, 5 * MIB, 5 * MIB + 1, 10 * MIB):
        (folder / f"{size}.bin").write_bytes(os.urandom(size))
    publish(store, folder)
    store.fetch(NAME, tmp_path / "out")
    for path in folder.iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
