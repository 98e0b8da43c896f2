"""Files are whole or not there, locks end with their process, and an unchanged file is read once."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.waiting import wait_for
from tunegate.api.errors import StoreError, UsageError
from tunegate.files import (
    alone_with,
    digest_of_file,
    digest_of_files,
    disk_errors_as,
    in_threads,
    is_locked,
    locked,
    new_folder,
    put_in_place,
    replace_file,
)

MIB = 1 << 20


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(os.urandom(MIB))
    return path


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let files count as settled at once: their ctime can't be set back."""
    monkeypatch.setattr("tunegate.files._RACY_SECONDS", 0.0)


def test_file_is_replaced_whole_and_nothing_stays_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "state.json"

    replace_file(path, b"old")
    replace_file(path, b"new")

    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_private_file_is_its_owners_alone(tmp_path: Path) -> None:
    replace_file(tmp_path / "key", b"secret", private=True)

    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


def test_failed_replacement_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken" / "folder").mkdir(parents=True)

    with pytest.raises(OSError, match="taken"):
        replace_file(tmp_path / "taken", b"a file")

    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_lock_of_another_is_seen_and_refused(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_locked(path)

    with locked(path):
        assert is_locked(path)
        with pytest.raises(UsageError, match="in use"), locked(path, busy=UsageError("in use")):
            pass

    assert not is_locked(path)


def test_lock_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    holder = "import sys, pathlib, tunegate.files as f\nwith f.locked(pathlib.Path(sys.argv[1])): sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", holder, str(path)], stdin=subprocess.PIPE) as process:
        wait_for(lambda: is_locked(path))
        process.kill()

    with locked(path, busy=UsageError("in use")):
        pass


def test_new_folder_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    into = tmp_path / "model"
    for name in ("one", "two"):
        with new_folder(into) as partial:
            (partial / name).touch()

    assert [path.name for path in into.iterdir()] == ["two"]
    assert list(tmp_path.iterdir()) == [into]


def test_new_folder_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with new_folder(tmp_path / "model") as partial:
            (partial / "layers").mkdir()
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()

    assert not list(tmp_path.iterdir())


def test_new_folder_begins_empty_whatever_a_killed_process_left(tmp_path: Path) -> None:
    (tmp_path / "model.partial" / "half").mkdir(parents=True)

    with new_folder(tmp_path / "model") as partial:
        assert not list(partial.iterdir())


def test_who_reads_the_old_folder_can_read_on(tmp_path: Path) -> None:
    into, partial = tmp_path / "model", tmp_path / "other"
    for folder in (into, partial):
        folder.mkdir()
        (folder / "weights").write_text(folder.name)

    with alone_with(into), (into / "weights").open() as reading:
        put_in_place(partial, into)
        assert reading.read() == "model"

    assert (into / "weights").read_text() == "other"


def test_what_the_disk_refuses_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StoreError, match=r"file can't be written: File exists; make room\."):  # noqa: SIM117
        with disk_errors_as(StoreError, tmp_path, "make room."):
            (tmp_path / "file").mkdir()


def test_digest_is_of_the_files_one_after_the_other(tmp_path: Path) -> None:
    for name, body in (("a", b"one"), ("b", b"two")):
        (tmp_path / name).write_bytes(body)

    digest = digest_of_files([tmp_path / "a", tmp_path / "b"], algorithm="sha1")

    assert digest == hashlib.sha1(b"onetwo").hexdigest()  # noqa: S324


@pytest.mark.usefixtures("settled")
def test_unchanged_file_is_read_once(weights: Path, tmp_path: Path) -> None:
    first = digest_of_file(weights, cache=tmp_path / "digests")
    (kept,) = (tmp_path / "digests").iterdir()
    kept.write_bytes(kept.read_bytes().replace(first.encode(), b"f" * 64))

    assert digest_of_file(weights, cache=tmp_path / "digests") == "f" * 64
    assert digest_of_file(weights) == first


@pytest.mark.usefixtures("settled")
def test_changed_file_is_read_again_also_with_its_old_size_and_time(weights: Path, tmp_path: Path) -> None:
    stat = weights.stat()
    before = digest_of_file(weights, cache=tmp_path / "digests")

    wait_for(lambda: time.time() > stat.st_ctime + 0.05)  # the kernel's clock for files ticks some 100 times a second
    with weights.open("r+b") as file:
        file.write(b"changed")
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    assert digest_of_file(weights, cache=tmp_path / "digests") != before


def test_file_of_the_last_seconds_is_not_kept(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunegate.files._RACY_SECONDS", 1000.0)
    digest_of_file(weights, cache=tmp_path / "digests")

    assert not (tmp_path / "digests").exists()


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("damage", [b"", b"{", b'{"files": 1}'])
def test_damaged_cache_costs_a_reading(damage: bytes, weights: Path, tmp_path: Path) -> None:
    digest = digest_of_file(weights, cache=tmp_path / "digests")
    (kept,) = (tmp_path / "digests").iterdir()
    kept.write_bytes(damage)

    assert digest_of_file(weights, cache=tmp_path / "digests") == digest


@pytest.mark.usefixtures("settled")
def test_cache_that_cannot_be_written_costs_a_reading(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "digests").touch()

    assert digest_of_file(weights, cache=tmp_path / "digests") == digest_of_file(weights)


def test_of_what_goes_wrong_in_threads_the_first_in_order_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    second_failed = threading.Event()

    def work(number: int) -> None:
        if number == 1:
            assert second_failed.wait(60)
        if number == 2:
            second_failed.set()
        if number:
            raise ValueError(number)

    with pytest.raises(ValueError, match="1"):
        in_threads(work, range(4))
