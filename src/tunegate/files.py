"""Files and folders that are whole or not there, locks that end with their process, digests that are computed once.

Here is every name that tunegate gives to what is beside the real thing: `.partial` while it is written, `.old` while
it is replaced, `.lock` to work on it alone. Locks are flock's, which the kernel releases however a process ends.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock
from pathlib import Path
from typing import TypeVar

import msgspec

from tunegate.api import environment
from tunegate.api.errors import TunegateError

POINTER = b"version https://git-lfs.github.com/spec/"  # what a file begins with that Git LFS did not fetch
_RACY_SECONDS = 10.0  # a younger file may change again without another size or time; git calls it racy
_MOST_THREADS = 8  # each may have some MiB in memory
_WORTH_KEEPING = 1 << 20  # bytes; what is smaller is read as fast as its kept digest

T = TypeVar("T")


def default_cache() -> Path:
    """Where fetched versions, exams and prepared data lie: TUNEGATE_CACHE, or ~/.cache/tunegate."""
    return Path(os.environ.get(environment.CACHE) or Path.home() / ".cache" / "tunegate")


def replace_file(path: Path, body: bytes, *, private: bool = False) -> None:
    """Write `path`, over an older one; after a crash it holds the old bytes or the new ones.

    `private`: readable by its owner alone. Raises OSError, and then leaves nothing beside it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666), "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def locked(path: Path, *, busy: TunegateError | None = None) -> Iterator[None]:
    """Hold the lock file `path`, after waiting for whoever has it; where `busy` is given, raise that instead."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lock:
        try:
            flock(lock, LOCK_EX | (LOCK_NB if busy else 0))
        except BlockingIOError:
            assert busy is not None
            raise busy from None
        yield


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock file `path` now."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as lock:
        try:
            flock(lock, LOCK_SH | LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextlib.contextmanager
def alone_with(folder: Path) -> Iterator[None]:
    """Hold the lock beside `folder`, which need not be there."""
    with locked(folder.with_name(f"{folder.name}.lock")):
        yield


@contextlib.contextmanager
def partial_folder(into: Path) -> Iterator[Path]:
    """The folder beside `into` that collects its files; one process at a time has it.

    `put_in_place` ends the collecting. What it holds otherwise is there for the next attempt.
    """
    partial = into.with_name(f"{into.name}.partial")
    with contextlib.suppress(FileExistsError):  # a file: the next mkdir says so
        partial.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with contextlib.suppress(FileExistsError):  # not mkdir's exist_ok: it fails when the folder goes meanwhile
            partial.mkdir()
        try:
            descriptor = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:  # whoever had it was done with it just now
            continue
        try:
            flock(descriptor, LOCK_EX)
            if _is_at(descriptor, partial):
                try:
                    yield partial
                finally:
                    if _is_at(descriptor, partial):  # else it is in its place, and what is here now is another's
                        with contextlib.suppress(OSError):  # not empty: it is for the next attempt
                            partial.rmdir()
                return
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def new_folder(into: Path) -> Iterator[Path]:
    """An empty folder that takes the place of `into` when the `with` ends well; otherwise nothing is left of it."""
    with partial_folder(into) as partial:
        _empty(partial)  # of what a killed process left
        try:
            yield partial
        except BaseException:
            _empty(partial)
            raise
        put_in_place(partial, into)


def put_in_place(partial: Path, into: Path) -> None:
    """Let the folder `partial` take the place of `into`. Who has a file of the older one open can read on."""
    if into.is_dir() and any(into.iterdir()):
        old = into.with_name(f"{into.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        into.rename(old)
        partial.rename(into)
        shutil.rmtree(old, ignore_errors=True)
    else:
        partial.replace(into)


@contextlib.contextmanager
def disk_errors_as(error: type[TunegateError], place: Path, remedy: str) -> Iterator[None]:
    """Raise what the disk refuses (full, read-only, not ours) as `error`: one sentence that ends in `remedy`."""
    try:
        yield
    except OSError as refused:
        path, reason = refused.filename or place, refused.strerror or refused
        raise error(f"{path} can't be written: {reason}; {remedy}") from refused


class _Kept(msgspec.Struct, frozen=True):
    """A digest, and what the files were like when it was computed."""

    files: list[list[str | int]]
    digest: str


def digest_of_files(paths: Sequence[Path], *, algorithm: str = "sha256", cache: Path | None = None) -> str:
    """The hex digest of the files' bytes, one file after the other. Raises OSError.

    With a `cache` folder, unchanged files are read once: by path, size, times and inode, as git's index does. It is
    for what a user's disk is trusted with, never to verify what came from elsewhere.
    """
    before = _looks(paths)
    kept = cache and cache / f"{hashlib.sha256(msgspec.json.encode([algorithm, *map(str, paths)])).hexdigest()}.json"
    if kept:
        with contextlib.suppress(OSError, msgspec.DecodeError):
            known = msgspec.json.decode(kept.read_bytes(), type=_Kept)
            if known.files == before:
                return known.digest
    digest = hashlib.new(algorithm)
    for path in paths:
        with path.open("rb", buffering=0) as stream:
            buffer = memoryview(bytearray(1 << 20))
            while count := stream.readinto(buffer):
                digest.update(buffer[:count])
    newest = max((max(path.stat().st_mtime, path.stat().st_ctime) for path in paths), default=0.0)
    is_settled = newest < time.time() - _RACY_SECONDS
    if kept and is_settled and sum(path.stat().st_size for path in paths) >= _WORTH_KEEPING and _looks(paths) == before:
        with contextlib.suppress(OSError):  # a cache that can't be written costs time, nothing else
            replace_file(kept, msgspec.json.encode(_Kept(before, digest.hexdigest())))
    return digest.hexdigest()


def digest_of_file(path: Path, *, cache: Path | None = None) -> str:
    """The hex sha256 of one file; see `digest_of_files`."""
    return digest_of_files([path], cache=cache)


def in_threads(work: Callable[[T], object], items: Iterable[T]) -> None:
    """Do `work` to each item, several at a time: for what leaves the interpreter to others meanwhile, as hashing and
    numpy do. Of what goes wrong the first, in the order of the items, is raised."""
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as threads:
        for _ in threads.map(work, items):
            pass


def _looks(paths: Sequence[Path]) -> list[list[str | int]]:
    found = [(path.absolute(), path.stat()) for path in paths]
    return [[str(path), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino] for path, stat in found]


def _is_at(descriptor: int, folder: Path) -> bool:
    """Whether the open folder is still there: whoever held the lock before may have put it in place."""
    try:
        return os.path.samestat(os.fstat(descriptor), folder.stat())
    except FileNotFoundError:
        return False


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
