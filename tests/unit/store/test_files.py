from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest

from tests.unit.store.conftest import MIB, Proxy
from tunegate.api.errors import NotFoundError, StoreError, UsageError
from tunegate.files import partial_folder
from tunegate.store import Store
from tunegate.store.files import fetch_plain, is_uri

Put = Callable[[str, bytes], None]


@pytest.fixture
def put(store: Store) -> Put:
    """Puts an object below the store's prefix, as other programs do."""
    _, _, bucket, *prefix = store.uri.split("/")
    client = boto3.client("s3", endpoint_url=store.endpoint_url)
    return lambda key, body: client.put_object(Bucket=bucket, Key="/".join([*prefix, key]), Body=body)


def _files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _fetch(store: Store, path: str, cache: Path) -> Path:
    return fetch_plain(f"{store.uri}/{path}", cache, endpoint_url=store.endpoint_url)


def test_a_file_has_its_name_and_bytes(store: Store, put: Put, tmp_path: Path) -> None:
    body = os.urandom(20 * MIB)
    put("data/rows.jsonl", body)
    put("data/rows.jsonl.old", b"another one")

    path = _fetch(store, "data/rows.jsonl", tmp_path)

    assert path.name == "rows.jsonl"
    assert path.read_bytes() == body
    assert _files(path.parent) == {"rows.jsonl": body}


@pytest.mark.parametrize("path", ["models/Qwen", "models/Qwen/"])
def test_a_folder_has_all_that_is_below_it(store: Store, put: Put, tmp_path: Path, path: str) -> None:
    put("models/Qwen/", b"")
    put("models/Qwen/config.json", b"{}")
    put("models/Qwen/deep/er.bin", b"")
    put("models/Qwen2/config.json", b"another one")

    folder = _fetch(store, path, tmp_path)

    assert folder.name == "Qwen"
    assert _files(folder) == {"config.json": b"{}", "deep/er.bin": b""}


def test_what_is_here_and_unchanged_is_not_fetched_again(
    store: Store, proxied: Store, proxy: Proxy, put: Put, tmp_path: Path
) -> None:
    put("data/rows.jsonl", os.urandom(3 * MIB))
    first = _fetch(proxied, "data/rows.jsonl", tmp_path)
    before = proxy.received

    assert _fetch(proxied, "data/rows.jsonl", tmp_path) == first
    assert proxy.received - before < 100_000


def test_other_bytes_lie_beside_the_old_ones(store: Store, put: Put, tmp_path: Path) -> None:
    put("data/rows.jsonl", b"old")
    old = _fetch(store, "data/rows.jsonl", tmp_path)
    put("data/rows.jsonl", b"new")

    assert _fetch(store, "data/rows.jsonl", tmp_path).read_bytes() == b"new"
    assert old.read_bytes() == b"old"


def test_an_interrupted_fetch_goes_on_with_what_it_lacks(
    store: Store, proxied: Store, proxy: Proxy, put: Put, tmp_path: Path
) -> None:
    for name in "ab":
        put(f"data/{name}", os.urandom(3 * MIB))
    wanted = _files(_fetch(store, "data", tmp_path / "elsewhere"))
    # What a killed fetch leaves: one file that is complete, and a part of another.
    name = hash_named(proxied, "data", tmp_path)
    partial = tmp_path / "plain" / f"{name}.partial" / "data"
    partial.mkdir(parents=True)
    (partial / "a").write_bytes(wanted["a"])
    (partial / "b.partial").write_bytes(wanted["b"][:MIB])
    before = proxy.received

    folder = _fetch(proxied, "data", tmp_path)

    assert _files(folder) == wanted
    assert 3 * MIB < proxy.received - before < 4 * MIB
    assert [path.name for path in (tmp_path / "plain").iterdir()] == [name]


def hash_named(store: Store, path: str, cache: Path) -> str:
    """The folder's name in the cache, from a fetch that is then undone."""
    folder = _fetch(store, path, cache / "once")
    return folder.parent.name


def test_two_may_fetch_at_once(store: Store, put: Put, tmp_path: Path) -> None:
    body = os.urandom(9 * MIB)
    put("data/rows.jsonl", body)

    with ThreadPoolExecutor(3) as both:
        paths = set(both.map(lambda _: _fetch(store, "data/rows.jsonl", tmp_path), range(3)))

    assert len(paths) == 1
    assert paths.pop().read_bytes() == body


def test_many_may_come_and_go_at_once(tmp_path: Path) -> None:
    into = tmp_path / "cache" / "data"
    inside = []

    def come_and_go(_: int) -> None:
        for _ in range(300):
            with partial_folder(into) as partial:
                inside.append(partial)
                assert partial.is_dir()
                assert len(inside) == 1
                inside.clear()

    with ThreadPoolExecutor(4) as many:
        list(many.map(come_and_go, range(4)))

    assert not list(into.parent.iterdir())


def test_something_else_in_the_place_of_the_partial_folder_is_told(store: Store, put: Put, tmp_path: Path) -> None:
    put("data/rows.jsonl", b"{}")
    name = hash_named(store, "data/rows.jsonl", tmp_path)
    partial = tmp_path / "plain" / f"{name}.partial"
    for put_there in (lambda: partial.write_text("mine"), lambda: partial.symlink_to("nowhere")):
        partial.parent.mkdir(exist_ok=True)
        put_there()
        with pytest.raises(StoreError, match=r"\.partial can't be written: .*; make room or choose another folder"):
            _fetch(store, "data/rows.jsonl", tmp_path)
        partial.unlink()


def test_what_changes_while_it_is_fetched_is_refused(store: Store, put: Put, tmp_path: Path, proxy: Proxy) -> None:
    put("data/rows.jsonl", os.urandom(3 * MIB))
    changed = []

    def change(proxy: Proxy) -> bool:
        if not changed and proxy.received > MIB:
            changed.append(True)
            put("data/rows.jsonl", os.urandom(3 * MIB))
        return False

    proxy.cut = change
    with pytest.raises(StoreError, match="changed while it was fetched"):
        fetch_plain(f"{store.uri}/data/rows.jsonl", tmp_path, endpoint_url=proxy.url)

    assert not [path for path in (tmp_path / "plain").iterdir() if not path.name.endswith(".partial")]


def test_nothing_there_is_told(store: Store, put: Put, tmp_path: Path) -> None:
    put("data/rows.jsonl", b"{}")

    with pytest.raises(NotFoundError, match=r"nothing at s3://.*/data/row; list the bucket"):
        _fetch(store, "data/row", tmp_path)


@pytest.mark.parametrize("uri", ["s3://bucket", "s3://bucket/", "gs://bucket/data", "s3://bucket/../data"])
def test_another_uri_is_refused(uri: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        fetch_plain(uri, tmp_path)


def test_a_uri_is_told_from_a_path() -> None:
    assert is_uri("s3://bucket/data")
    assert is_uri("oss://bucket/data")
    assert not is_uri("/data/oss_bucket_0")
