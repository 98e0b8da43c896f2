"""Answers on their way to the store: first in files of this machine, then, many together, in a segment.

A file is never written again once it is closed; its name says which segment it becomes, and that is put into the store
only if it is not there. So a server that is killed between any two lines of this module, however often, loses no line
that is in a file, and no answer is in two segments. Files of a server that is gone are sent by the next one.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import date
from io import BufferedWriter
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import msgspec

from tunegate.api.errors import TunegateError
from tunegate.feedback.interactions import FOLDER, Interaction, redacted
from tunegate.feedback.segments import Segment, new_writer, segment_key, utc_day
from tunegate.files import locked

logger = logging.getLogger(__name__)
SEGMENT_SECONDS = 10.0
"""How old a file gets before it is sent."""
MOST_ROWS, MOST_BYTES = 2000, 4 << 20
"""How much a file gets before it is sent."""
MOST_SPOOLED = 1 << 30
"""Bytes of files, for an hour without the store and more; what comes then is not kept."""
_MOST_QUEUED = 20_000
_ASIDE_SECONDS = 0.1
_RETRY_SECONDS = 5.0
_LOCK = "writer.lock"
_OPEN, _CLOSED = ".open", ".jsonl"


class Store(Protocol):
    """What is needed of the store."""

    def put_new(self, key: str, body: bytes) -> bool: ...


def spool_of(cache: Path, store_uri: str, endpoint_url: str | None) -> Path:
    """The folder for answers that go to this store. An embedded one may be at another port each time."""
    host = urlsplit(endpoint_url or "").hostname or ""
    return cache / "interactions" / hashlib.sha256(f"{store_uri} {host}".encode()).hexdigest()[:12]


class Spool:
    """The files of one writer, in a folder of its own below `root`, which other writers of this machine share."""

    def __init__(self, root: Path, store: Store) -> None:
        self._root, self._store = root, store
        self.writer = new_writer()
        self._folder = root / self.writer
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(locked(self._folder / _LOCK))
        self._open: dict[date, _File] = {}
        self._number = 0
        self._sending = threading.Lock()

    def write(self, day: date, line: bytes) -> None:
        """Add a line to the file of `day`; it outlives this process once `flush` was called. Raises OSError."""
        if day not in self._open:
            self._open[day] = _File(self._folder / f"{day.isoformat()}.{self._number:06}{_OPEN}")
            self._number += 1
        self._open[day].write(line)

    def flush(self) -> None:
        """Bring what was written to the disk, and close the files that are old or large enough to be sent."""
        for day, file in list(self._open.items()):
            file.flush()
            if file.is_due():
                self._open.pop(day).close()

    def close_files(self) -> None:
        while self._open:
            self._open.popitem()[1].close()

    def send(self) -> None:
        """Put every closed file into the store, also those of writers that are gone. Raises StoreError."""
        with self._sending:
            _send(self._folder, self._store)
            for other in self._others():
                for path in other.glob(f"*{_OPEN}"):
                    path.rename(path.with_suffix(_CLOSED))
                _send(other, self._store)
                shutil.rmtree(other, ignore_errors=True)

    def _others(self) -> Iterator[Path]:
        """The folders of writers that are gone, each ours meanwhile; one that just begins has no files yet."""
        for folder in sorted(self._root.iterdir()):
            if folder != self._folder and any(path.suffix in (_OPEN, _CLOSED) for path in folder.glob("*")):
                with contextlib.suppress(BlockingWriterError), locked(folder / _LOCK, busy=BlockingWriterError()):
                    yield folder

    def size(self) -> int:
        """Bytes that wait on this machine."""
        sizes = 0
        for path in self._root.glob("*/*"):
            with contextlib.suppress(FileNotFoundError):  # sent meanwhile
                sizes += path.stat().st_size
        return sizes

    def close(self) -> None:
        """Give the folder up; files that are left in it are for the next writer."""
        with self._stack:
            self.close_files()
            if not any(path.suffix in (_OPEN, _CLOSED) for path in self._folder.iterdir()):
                shutil.rmtree(self._folder, ignore_errors=True)


class BlockingWriterError(TunegateError):
    """Another process writes there; nobody is told."""


class _File:
    """One file that grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._began = time.monotonic()
        self._rows = self._bytes = 0
        self._file: BufferedWriter = path.open("wb")

    def write(self, line: bytes) -> None:
        self._file.write(line + b"\n")
        self._rows += 1
        self._bytes += len(line)

    def flush(self) -> None:
        self._file.flush()
        os.fdatasync(self._file.fileno())

    def is_due(self) -> bool:
        age = time.monotonic() - self._began
        return self._rows >= MOST_ROWS or self._bytes >= MOST_BYTES or age >= SEGMENT_SECONDS

    def close(self) -> None:
        self.flush()
        self._file.close()
        self.path.rename(self.path.with_suffix(_CLOSED))


def _send(folder: Path, store: Store) -> None:
    for path in sorted(folder.glob(f"*{_CLOSED}")):
        day, number, _ = path.name.split(".")
        *lines, _torn = path.read_bytes().split(b"\n")  # a write that a crash has cut was told to nobody
        if lines:
            body = Segment().with_lines(lines).to_bytes()
            store.put_new(segment_key(FOLDER, date.fromisoformat(day), folder.name, int(number)), body)
        path.unlink()


class InteractionLog:
    """Takes answers without waiting for anything: one thread writes them to the spool, another sends it."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._queue: deque[tuple[float, Callable[[], Interaction]]] = deque()  # when each was added
        self._wake, self._stop = threading.Event(), threading.Event()
        self._lost = 0
        self._is_full = False
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._write_all, self._send_all)]
        for thread in self._threads:
            thread.start()

    def add(self, make: Callable[[], Interaction]) -> None:
        """Keep what `make` gives, soon: it is called in a thread of the log."""
        if self._is_full or len(self._queue) >= _MOST_QUEUED:
            self._lost += 1
            return
        self._queue.append((time.monotonic(), make))
        self._wake.set()

    def close(self) -> None:
        """Write what was added, and send it if the store is there; else it stays for the next server on this disk."""
        self._stop.set()
        self._wake.set()
        for thread in self._threads:
            thread.join()
        for last in (self._spool.close_files, self._try_to_send, self._spool.close):
            try:
                last()
            except OSError as error:
                logger.warning("answers were not logged", extra={"reason": error.strerror, "path": error.filename})

    def _write_all(self) -> None:
        while not self._stop.is_set() or self._queue:
            if not self._stop.is_set():  # else a disk that takes nothing would hold up the end, answer by answer
                self._wake.wait(SEGMENT_SECONDS / 4)
            self._wake.clear()
            try:
                self._write_queued()
            except OSError as error:
                self._lost += 1
                logger.warning("answers were not logged", extra={"reason": error.strerror, "path": error.filename})

    def _write_queued(self) -> None:
        """Each some time after it was added: not while its client asks the next thing, and not many on end."""
        flushed = time.monotonic()
        while self._queue:
            added, make = self._queue.popleft()
            self._stop.wait(added + _ASIDE_SECONDS - time.monotonic())
            self._write(make)
            if (now := time.monotonic()) > flushed + _ASIDE_SECONDS:
                self._spool.flush()
                flushed = now
        self._spool.flush()

    def _write(self, make: Callable[[], Interaction]) -> None:
        try:
            interaction = redacted(make())
            day, line = utc_day(interaction.answered), msgspec.json.encode(interaction)
        except Exception as error:  # a trace may quote texts, and the next answer is to be logged
            logger.warning("an answer was not logged", extra={"kind": type(error).__name__})
            return
        self._spool.write(day, line)

    def _send_all(self) -> None:
        while not self._stop.wait(SEGMENT_SECONDS / 4):
            if not self._try_to_send():
                self._stop.wait(_RETRY_SECONDS)

    def _try_to_send(self) -> bool:
        try:
            self._spool.send()
        except Exception as error:  # whatever it is, it is tried again: the answers are on the disk
            waiting = self._spool.size()
            is_full = waiting > MOST_SPOOLED
            logger.warning("answers wait for the store", extra={"bytes": waiting, "kind": type(error).__name__})
        else:
            is_full = False
        if lost := self._lost:
            self._lost = 0
            logger.warning("answers were not logged", extra={"answers": lost, "remedy": "bring the store back"})
        self._is_full = is_full
        return not is_full
