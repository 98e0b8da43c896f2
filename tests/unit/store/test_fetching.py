from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tunegate.api.errors import DigestError, NotFoundError, StoreError, UsageError
from tunegate.api.versions import ModelVersion, Producer, Release
from tunegate.store import Store

from .conftest import MIB, Proxy

NAME = "tea/run/checkpoint-1"


@pytest.fixture
def version(store: Store, model: Path) -> ModelVersion:
    return store.publish(model, NAME, release=Release(format="huggingface"), producer=Producer(kind="test"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_fetch_brings_what_was_published(store: Store, version: ModelVersion, model: Path, tmp_path: Path) -> None:
    into = tmp_path / "deep" / "er" / "out"
    assert store.fetch(version.digest, into, include_resume=True) == into
    fetched = contents(into)
    assert fetched.pop("release.yaml")
    assert fetched == contents(model)
    assert os.listdir(into.parent) == ["out"]


@pytest.mark.usefixtures("version")
def test_resume_state_comes_only_when_asked_for(store: Store, tmp_path: Path) -> None:
    store.fetch(NAME, tmp_path / "out")
    assert not (tmp_path / "out" / "resume").exists()
    store.fetch(NAME, tmp_path / "out", include_resume=True)
    assert (tmp_path / "out" / "resume" / "zero" / "rank-0.pt").exists()
    store.fetch(NAME, tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["model", "out"]


@pytest.mark.usefixtures("version")
def test_complete_folder_is_not_downloaded_again(proxied: Store, proxy: Proxy, tmp_path: Path) -> None:
    proxied.fetch(NAME, tmp_path / "out")
    before = proxy.received
    proxied.fetch(NAME, tmp_path / "out")
    assert proxy.received - before < 0.1 * MIB


@pytest.mark.usefixtures("version")
def test_damaged_folder_is_mended(proxied: Store, proxy: Proxy, model: Path, tmp_path: Path) -> None:
    out = proxied.fetch(NAME, tmp_path / "out")
    (out / "config.json").write_text("damaged")
    before = proxy.received
    proxied.fetch(NAME, out)
    assert proxy.received - before < 0.1 * MIB
    assert (out / "config.json").read_bytes() == (model / "config.json").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["model", "out"]


@pytest.mark.usefixtures("version")
def test_interrupted_fetch_keeps_what_is_complete(proxied: Store, proxy: Proxy, model: Path, tmp_path: Path) -> None:
    partial = tmp_path / "out.partial"
    partial.mkdir()
    shutil.copy(model / "model.safetensors", partial)
    (partial / "config.json").write_bytes(b"half")
    (partial / "of another version").touch()
    before = proxy.received
    proxied.fetch(NAME, tmp_path / "out")
    assert proxy.received - before < 0.1 * MIB
    assert set(contents(tmp_path / "out")) == {"added_tokens.json", "config.json", "model.safetensors", "release.yaml"}


def test_other_digest_than_expected_is_refused(store: Store, version: ModelVersion, tmp_path: Path) -> None:
    with pytest.raises(DigestError, match=f"is {version.digest}, not sha256:0"):
        store.fetch(NAME, tmp_path / "out", digest="sha256:0")
    store.fetch(NAME, tmp_path / "out", digest=version.digest)


@pytest.mark.usefixtures("version")
@pytest.mark.parametrize("damage", ["flipped", "shorter", "missing"])
def test_corrupted_object_is_named_and_nothing_is_put_in_place(store: Store, tmp_path: Path, damage: str) -> None:
    key = f"{NAME}/model.safetensors"
    body = bytearray(store.get(key) or b"")
    body[MIB] ^= 1
    if damage == "missing":
        store.delete(key)
    else:
        store.put(key, bytes(body if damage == "flipped" else body[:-1]))
    with pytest.raises(DigestError, match=key):
        store.verify(NAME)
    with pytest.raises(DigestError, match=key):
        store.fetch(NAME, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial" / "model.safetensors").exists()


@pytest.mark.usefixtures("version")
def test_folder_of_something_else_is_left_alone(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match=r"holds thesis.tex, which is not of tea/run/checkpoint-1"):
        store.fetch(NAME, out)
    assert contents(out) == {"thesis.tex": b"mine"}
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        store.fetch(NAME, tmp_path / "file")
    assert sorted(os.listdir(tmp_path)) == ["file", "model", "out"]


@pytest.mark.usefixtures("version")
def test_empty_folder_is_filled(store: Store, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    store.fetch(NAME, tmp_path / "out")
    assert (tmp_path / "out" / "config.json").exists()


@pytest.mark.usefixtures("version")
def test_two_fetches_into_one_folder_share_the_work(proxied: Store, proxy: Proxy, tmp_path: Path) -> None:
    before = proxy.received
    with ThreadPoolExecutor(2) as both:
        list(both.map(lambda _: proxied.fetch(NAME, tmp_path / "out"), range(2)))
    assert proxy.received - before < 3.5 * MIB
    assert sorted(os.listdir(tmp_path)) == ["model", "out"]


@pytest.mark.usefixtures("version")
def test_progress_of_fetch_and_verify_reaches_the_total(store: Store, tmp_path: Path) -> None:
    size = store.manifest(NAME).size
    for total, move in (
        (size, lambda progress: store.verify(NAME, progress)),
        (size - 1000, lambda progress: store.fetch(NAME, tmp_path / "out", progress=progress)),
        (size - 1000, lambda progress: store.fetch(NAME, tmp_path / "out", progress=progress)),
    ):
        calls: list[tuple[int, int]] = []
        move(lambda done, total, calls=calls: calls.append((done, total)))
        assert calls[-1] == (total, total)
        assert calls == sorted(calls)


def test_missing_version_is_not_fetched(store: Store, tmp_path: Path) -> None:
    store.put(f"{NAME}/config.json", b"{}")
    with pytest.raises(NotFoundError):
        store.fetch(NAME, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB, where the machine lets us mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("no right to mount a small file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.usefixtures("version")
def test_full_disk_is_told_and_nothing_is_put_in_place(store: Store, small_disk: Path) -> None:
    with pytest.raises(StoreError, match="No space left on device; make room or choose another folder"):
        store.fetch(NAME, small_disk / "out")
    assert not (small_disk / "out").exists()


@pytest.mark.usefixtures("version")
def test_place_that_is_no_folder_is_told(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="can't be written: Not a directory"):
        store.fetch(NAME, tmp_path / "file" / "out")
