"""Whatever a store does with conditional puts: one publisher wins, or a sentence says that there may be only one."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import pytest

from tunegate.api.errors import StoreError
from tunegate.api.feedback import Feedback, FeedbackRecord, Tally, Verdict
from tunegate.api.versions import ModelVersion, Producer, Release
from tunegate.feedback import FeedbackLog, VoteWriter
from tunegate.store import Store
from tunegate.store.bucket import PROBE

from .picky import PickyStore, picky_store

NAME = "tea/run/checkpoint-1"
WAYS = ("", "oss", "cos", "deaf")
Behind = Callable[..., tuple[Store, PickyStore]]


@pytest.fixture
def behind(store: Store) -> Iterator[Behind]:
    """The store, behind a front of the given manners."""
    with ExitStack() as open_fronts:

        def make(way: str, *refused: str) -> tuple[Store, PickyStore]:
            front = open_fronts.enter_context(picky_store(store.endpoint_url or "", way, refused))
            return Store.open(store.uri, endpoint_url=front.url), front

        yield make


def publish(store: Store, folder: Path, name: str = NAME) -> ModelVersion:
    return store.publish(folder, name, release=Release(format="huggingface"), producer=Producer(kind="test"))


def folder_of(path: Path, text: bytes) -> Path:
    path.mkdir()
    (path / "config.json").write_bytes(text)
    (path / "model.safetensors").write_bytes(os.urandom(100_000))
    return path


@pytest.mark.parametrize("way", WAYS)
def test_document_is_written_once(way: str, behind: Behind, caplog: pytest.LogCaptureFixture) -> None:
    store, _ = behind(way)

    assert store.put_new("a", b"first")
    assert not store.put_new("a", b"second")

    assert store.get("a") == b"first"
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    said = f"{store.uri} can't refuse to overwrite, so let only one process publish to it at a time."
    assert warnings == ([said] if way == "deaf" else [])


@pytest.mark.parametrize("way", ["", "oss"])
def test_one_of_many_writers_of_a_document_wins(way: str, behind: Behind) -> None:
    store, _ = behind(way)

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda number: store.put_new("a", str(number).encode()), range(8)))

    assert won.count(True) == 1
    assert store.get("a") == str(won.index(True)).encode()


def test_the_way_of_a_store_is_found_out_once(behind: Behind) -> None:
    store, front = behind("oss")
    for key in ("a", "b", "c"):
        store.put_new(key, b"")

    assert len([line for line in front.requests if PROBE in line]) == 3
    assert not [line for line in front.requests if line.startswith("DELETE")]


@pytest.mark.parametrize("way", WAYS)
def test_version_is_published_and_read(way: str, behind: Behind, tmp_path: Path) -> None:
    store, _ = behind(way)

    version = publish(store, folder_of(tmp_path / "model", b"{}"))

    assert store.list() == [version]
    store.verify(NAME)
    assert publish(store, tmp_path / "model") == version


@pytest.mark.parametrize("way", WAYS)
def test_one_of_two_publishers_wins(way: str, behind: Behind, tmp_path: Path) -> None:
    """Claims need no condition of the store, so this holds also where it knows none."""
    store, front = behind(way)
    stores = [store, Store.open(store.uri, endpoint_url=front.url)]
    folders = [folder_of(tmp_path / name, name.encode()) for name in ("one", "two")]

    def attempt(number: int) -> str:
        try:
            return publish(stores[number], folders[number]).digest
        except StoreError as error:
            assert "taken by other bytes" in str(error)  # noqa: PT017
            return ""

    with ThreadPoolExecutor(2) as pool:
        digests = list(pool.map(attempt, range(2)))

    assert digests.count("") == 1
    assert store.verify(NAME).digest in digests


def test_a_verdict_counts_once_where_conditions_are_refused(behind: Behind) -> None:
    store, _ = behind("oss")
    digest = "sha256:" + "a" * 64
    up, down = (
        FeedbackRecord(
            feedback=Feedback(response_id="chatcmpl-1", verdict=verdict),
            digest=digest,
            answered=datetime(2026, 1, 1, tzinfo=UTC),
            received=datetime(2026, 1, day, tzinfo=UTC),
        )
        for day, verdict in enumerate(get_args(Verdict), 2)
    )
    assert [VoteWriter(store).write([record]) for record in (up, down)] == [["counted"], ["late"]], "by two servers"
    assert FeedbackLog(store).tally(digest) == Tally(up=1)


@pytest.mark.parametrize("refused", ["DELETE", "uploads"])
def test_what_cannot_be_tidied_up_is_said_and_the_version_is_published(
    refused: str, behind: Behind, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tunegate.store")
    store, _ = behind("", refused)

    version = publish(store, folder_of(tmp_path / "model", b"{}"))

    assert store.list() == [version]
    assert "stay" in caplog.text
    publish(store, tmp_path / "model", "tea/run/checkpoint-2")


def test_right_to_put_is_needed(behind: Behind) -> None:
    store, _ = behind("", "PUT")

    with pytest.raises(StoreError, match="does not allow PutObject to these credentials"):
        store.put_new("a", b"")
