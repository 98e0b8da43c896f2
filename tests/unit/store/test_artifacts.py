"""Folders in the store that are no versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunegate.api.errors import DigestError, NotFoundError, UsageError
from tunegate.store import Store
from tunegate.store.artifacts import Artifacts, digest_of_folder


@pytest.fixture
def artifacts(store: Store) -> Artifacts:
    return store.artifacts("knowledge")


def folder(path: Path, text: str) -> Path:
    (path / "words").mkdir(parents=True)
    (path / "index.json").write_text(text)
    (path / "words/data.npy").write_text(text * 2)
    return path


def test_a_folder_comes_back_as_it_was_and_is_no_version(artifacts: Artifacts, store: Store, tmp_path: Path) -> None:
    made = folder(tmp_path / "made", "one")

    published = artifacts.publish(made, "shop-help")
    back = artifacts.fetch(artifacts.find("shop-help"), tmp_path / "back")

    assert published.digest == digest_of_folder(made) == digest_of_folder(back)
    assert store.list() == []


def test_a_name_stands_for_what_was_published_last_and_older_ones_stay(artifacts: Artifacts, tmp_path: Path) -> None:
    first = artifacts.publish(folder(tmp_path / "1", "one"), "help")
    second = artifacts.publish(folder(tmp_path / "2", "two"), "help")

    assert artifacts.find("help") == second
    assert artifacts.find(f"help@{first.digest}") == artifacts.find(f"help@{first.digest[7:17]}") == first
    artifacts.publish(tmp_path / "1", "help")
    assert artifacts.find("help") == first


def test_what_is_not_there_or_no_name(artifacts: Artifacts, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no knowledge help in .*; there is none"):
        artifacts.find("help")
    artifacts.publish(folder(tmp_path / "1", "one"), "help")
    with pytest.raises(NotFoundError, match="there are: help"):
        artifacts.find("other")
    with pytest.raises(NotFoundError, match="no knowledge help@00000000"):
        artifacts.find("help@00000000")
    with pytest.raises(UsageError, match="is no digest"):
        artifacts.find("help@latest")
    with pytest.raises(UsageError, match="can't be a name"):
        artifacts.publish(tmp_path / "1", "../help")


def test_an_artifact_without_its_manifest_is_not_there(artifacts: Artifacts, store: Store, tmp_path: Path) -> None:
    artifact = artifacts.publish(folder(tmp_path / "1", "one"), "help")
    store.delete(f"{artifact.name}/manifest.json")

    with pytest.raises(NotFoundError):
        artifacts.find("help")
    assert artifacts.publish(tmp_path / "1", "help") == artifacts.find("help")


def test_damaged_bytes_are_never_fetched(artifacts: Artifacts, store: Store, tmp_path: Path) -> None:
    artifact = artifacts.publish(folder(tmp_path / "1", "one"), "help")
    store.put(f"{artifact.name}/index.json", b"two")

    with pytest.raises(
        DigestError, match=r"index\.json differs from its manifest; delete .*, and build the index again\.$"
    ):
        artifacts.fetch(artifact, tmp_path / "back")
    assert not (tmp_path / "back").exists()
    for file in ("manifest.json", "index.json"):
        store.delete(f"{artifact.name}/{file}")
    artifacts.fetch(artifacts.publish(tmp_path / "1", "help"), tmp_path / "back")
    assert (tmp_path / "back/index.json").read_bytes() == (tmp_path / "1/index.json").read_bytes()

    manifest = store.get(f"{artifact.name}/manifest.json") or b""
    store.put(f"{artifact.name}/manifest.json", manifest.replace(b"words/", b"wordz/"))
    with pytest.raises(DigestError, match="disagrees with itself"):
        artifacts.find("help")
