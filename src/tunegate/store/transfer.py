"""Bytes between files and the store: several files at a time, hashed in order while they pass.

sha256 goes on from byte to byte, so a driver thread per file reads, hashes and hands parts to a shared pool.
Downloading, it has a file, or a segment of one whose states are known (sha256.py); it does all by itself unless the
connection is slow, and then takes parts from the pool in order. It knows keys and paths, not versions.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import logging
import os
import random
import struct
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import botocore.exceptions

from tunegate.api.codec import Resource
from tunegate.api.errors import StoreError
from tunegate.processes import is_loopback
from tunegate.store.bodies import Body
from tunegate.store.bucket import Bucket, in_pieces
from tunegate.store.client import BROKEN, UNREACHED, code_of, is_refused
from tunegate.store.sha256 import Hashed, Hasher, Segment, Sha256, hash_file

_LOG = logging.getLogger(__name__)
T = TypeVar("T")
_Digest: TypeAlias = "Sha256 | hashlib._Hash"
Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all, from any thread, never twice at once."""

PART = 8 << 20  # bytes; files above 80 GB have larger ones, S3 allows 10,000 a file
_MAX_PARTS = 10_000
_CHUNK = 1 << 20  # bytes read at once: written and hashed without another copy, while they are in the cache
_HEADWAY = 256 << 10  # bytes after which a connection that breaks is a new mishap, and not the same again
_COPY_PART = 256 << 20
_SENDERS = 4  # parts in flight; with those that wait for their turn, some 200 MB are in memory at most
_FILES = 4  # files in flight
_ATTEMPTS = 6
_RANGE = 64 << 20  # bytes of one request to a fast store: SeaweedFS works half as long again for 256 MiB at once
_FAST = 100 << 20  # bytes a second; S3 gives one connection 85 to 90 MB/s
_TRIAL = 0.5  # seconds that a connection has to show how fast it is


class ByteCounter:
    """Adds up the bytes that are done and tells `progress`."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total = total
        self._done = 0
        self._progress = progress
        self._lock = threading.Lock()
        self.add(0)

    def add(self, count: int) -> None:
        with self._lock:
            self._done += count
            if self._progress:
                self._progress(self._done, self._total)


@dataclass(frozen=True)
class Held:
    """A file that a version in the store has, and what it was when that was complete."""

    version: str
    hashed: Hashed


@dataclass(frozen=True)
class Sent:
    """A file of a version in the making that another process has, and has sent: what it was there."""

    hashed: Hashed


@dataclass(frozen=True)
class SourceFile:
    """What is to be stored under `path` of a version: a file, bytes that we made, or what is in the store already."""

    path: str
    size: int
    origin: Path | bytes | Held | Sent

    def open(self) -> io.FileIO | io.BytesIO:
        """Its bytes. Raises StoreError for what is in the store, and is only ever copied or kept there."""
        if isinstance(self.origin, Sent):
            raise StoreError(f"{self.path}, which another process sent, is gone from the store; have it sent again.")
        if isinstance(self.origin, Held):
            changed = f"{self.origin.version}/{self.path} was written again in the store"
            raise StoreError(f"{changed}, so it is not copied; check it: tunegate models verify {self.origin.version}")
        return io.BytesIO(self.origin) if isinstance(self.origin, bytes) else io.FileIO(self.origin)

    def hashed(self) -> Hashed:
        if isinstance(self.origin, Held | Sent):
            return self.origin.hashed
        with self.open() as file:
            return hash_file(file, self.size)


class Finished(Resource, frozen=True, kw_only=True):
    """A file that is in the store as a whole: its bytes, the sha256 of what was sent, the ETag that was answered."""

    size: int
    sha256: str
    etag: str


@dataclass(frozen=True)
class Download:
    """A file to download: key in the store, size in bytes, and where to write it; nowhere when it is only verified.

    segment: which part of it, in a target that holds nothing else yet than other parts.
    """

    key: str
    size: int
    target: Path | None
    segment: Segment | None = None

    @property
    def end(self) -> int:
        return self.segment.end if self.segment else self.size


class Transfers:
    """The thread pools of one publish or fetch; leaving the `with` ends what is still in flight."""

    def __init__(self, bucket: Bucket, counter: ByteCounter) -> None:
        self._bucket = bucket
        self._counter = counter
        # Within a machine it is the processor that keeps a connection waiting, and more of them cost more of it.
        self._fast = 0 if is_loopback(bucket.client.meta.endpoint_url) else _FAST
        self._parts = ThreadPoolExecutor(_SENDERS, "tunegate-part")
        self._files = ThreadPoolExecutor(_FILES, "tunegate-file")
        # Who reads a fast store has a processor's work to do, and more of them wait for the interpreter's lock.
        self._streams = threading.Semaphore(os.cpu_count() or 1)
        self._failed = threading.Event()
        self._knows_ranges = True

    def __enter__(self) -> Transfers:
        return self

    def __exit__(self, *_: object) -> None:
        self._failed.set()
        self._files.shutdown(cancel_futures=True)
        self._parts.shutdown(cancel_futures=True)

    def for_each(self, do: Callable[[T], None], items: Sequence[T]) -> None:
        """Do it for every item, some at a time; the first failure stops the rest and is raised."""

        def guarded(item: T) -> None:
            if self._failed.is_set():
                return
            try:
                do(item)
            except BaseException:
                self._failed.set()
                raise

        futures = [self._files.submit(guarded, item) for item in items]
        errors = [error for future in futures if (error := future.exception())]
        # What stopped because another file failed says nothing; the failure itself does.
        for error in sorted(errors, key=lambda error: isinstance(error, _StoppedError)):
            raise error

    def upload(self, source: SourceFile, key: str) -> tuple[Finished, Hashed]:
        """Send one file. Raises StoreError when it changes meanwhile or the store fails."""
        with source.open() as file:
            before = _stamp(file)
            if source.size > PART:
                sent, hashed = self._upload_parts(source, file, key)
            else:
                body = file.read(source.size + 1)
                crc, where = _crc32(body), self._bucket.place(key)
                answer = self._with_retries(
                    lambda: self._bucket.client.put_object(**where, Body=in_pieces(body), ChecksumCRC32=crc)
                )
                self._counter.add(len(body))
                etag = answer["ETag"].strip('"')
                hashed = Hashed(hashlib.sha256(body).hexdigest())
                sent = Finished(size=len(body), sha256=hashed.sha256, etag=etag)
            if sent.size != source.size or _stamp(file) != before:
                raise _changed(source)
        return sent, hashed

    def abort_uploads(self, prefix: str) -> None:
        """Drop the parts that killed publishers left under a prefix; they are invisible, but they take room."""
        client, where = self._bucket.client, self._bucket.place(prefix)
        try:
            answer = client.list_multipart_uploads(Bucket=where["Bucket"], Prefix=where["Key"])
            for upload in answer.get("Uploads", ()):
                client.abort_multipart_upload(Bucket=where["Bucket"], Key=upload["Key"], UploadId=upload["UploadId"])
        except botocore.exceptions.ClientError as error:
            if not is_refused(error):
                raise
            _LOG.info("parts of interrupted uploads may stay below %s: %s", prefix, error)

    def copy(self, source_key: str, key: str, size: int) -> str:
        """Copy inside the store, no bytes through here; returns the ETag."""
        client, where = self._bucket.client, self._bucket.place(key)
        origin = self._bucket.place(source_key)
        if size <= _COPY_PART:
            answer = client.copy_object(**where, CopySource=origin)
            return str(answer["CopyObjectResult"]["ETag"]).strip('"')

        part_size = max(_COPY_PART, -(-size // _MAX_PARTS))

        def copy_part(number: int, start: int) -> dict[str, Any]:
            span = f"bytes={start}-{min(start + part_size, size) - 1}"
            part = {**where, "UploadId": upload_id, "PartNumber": number}
            answer = client.upload_part_copy(**part, CopySource=origin, CopySourceRange=span)
            return {"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]}

        with self._multipart(where) as (upload_id, finish):
            futures = [self._parts.submit(copy_part, n, i) for n, i in enumerate(range(0, size, part_size), 1)]
            return finish([future.result() for future in futures])

    def download(self, download: Download) -> str:
        """Read one file or segment, to its target if it has one.

        Returns the sha256 of what was read; of a segment with others behind it, the state that it led to.
        """
        part = download.segment
        digest = Sha256(part.before, part.start) if part else hashlib.sha256()
        with _target(download) as descriptor:
            with self._streams:
                start = self._stream(download, descriptor, digest)
            self._read_parts(download, start, descriptor, digest)
        if isinstance(digest, Sha256) and download.end < download.size:
            return digest.state()
        return digest.hexdigest()

    def _stream(self, download: Download, descriptor: int | None, digest: _Digest) -> int:
        """Read range by range for as long as that is fast; returns where it was given up.

        A piece is hashed and written while it is in the processor's cache, which takes half the time of doing so later.
        """
        first = start = download.segment.start if download.segment else 0
        last, began = download.end, time.monotonic()
        buffer = memoryview(bytearray(min(_CHUNK, last - start)))
        while start < last:
            end = min(start + _RANGE, last) if self._knows_ranges else last
            for piece in self._pieces(download.key, start, end, buffer):
                _write(descriptor, start, piece)
                digest.update(piece)
                start += len(piece)
                seconds = time.monotonic() - began
                is_slow = seconds > _TRIAL and start - first < self._fast * seconds and self._knows_ranges
                if is_slow and last - start > PART:
                    return start
        return start

    def _read_parts(self, download: Download, start: int, descriptor: int | None, digest: _Digest) -> None:
        """Read the rest by several connections."""
        with self._pending_parts() as pending:
            starts = deque(range(start, download.end, PART))
            while starts or pending:
                self._raise_if_stopped()
                if starts and len(pending) <= _SENDERS:
                    start = starts.popleft()
                    end = min(start + PART, download.end)
                    pending.append(self._parts.submit(self._read, download.key, start, end, descriptor))
                else:
                    digest.update(pending.popleft().result())

    def _upload_parts(self, source: SourceFile, file: io.FileIO | io.BytesIO, key: str) -> tuple[Finished, Hashed]:
        where = self._bucket.place(key)
        hasher, size = Hasher(source.size), 0
        part_size = PART
        while part_size * _MAX_PARTS < source.size:
            part_size *= 2  # so that segments end where parts end
        parts: list[dict[str, Any]] = []
        with (
            self._multipart(where, ChecksumAlgorithm="CRC32") as (upload_id, finish),
            self._pending_parts() as pending,
        ):
            while body := file.read(part_size):
                self._raise_if_stopped()
                hasher.update(body)
                size += len(body)
                part = {**where, "UploadId": upload_id, "PartNumber": len(parts) + len(pending) + 1}
                pending.append(self._parts.submit(self._send, part, body))
                if len(pending) > _SENDERS:
                    parts.append(pending.popleft().result())
            parts += [future.result() for future in pending]
            if size != source.size:  # a file that grew has a short part amid the others, which the store would refuse
                raise _changed(source)
            hashed = hasher.hashed()
            return Finished(size=size, sha256=hashed.sha256, etag=finish(parts)), hashed

    def _send(self, part: dict[str, Any], body: bytes) -> dict[str, Any]:
        # The store checks CRC32 of every body before it answers. Measured on one core: CRC32 1.4 GiB/s, MD5 (which
        # checking its ETags would take) 0.5 GiB/s, and a second sha256 0.8 GiB/s.
        crc = _crc32(body)
        answer = self._with_retries(
            lambda: self._bucket.client.upload_part(**part, Body=in_pieces(body), ChecksumCRC32=crc)
        )
        self._counter.add(len(body))
        return {"PartNumber": part["PartNumber"], "ETag": answer["ETag"], "ChecksumCRC32": crc}

    @contextlib.contextmanager
    def _pending_parts(self) -> Iterator[deque[Future[Any]]]:
        """The parts of one file in their order. When this ends, none still uses the file's descriptor or upload."""
        pending: deque[Future[Any]] = deque()
        try:
            yield pending
        except BaseException:
            self._failed.set()
            raise
        finally:
            wait(pending)

    @contextlib.contextmanager
    def _multipart(
        self, where: dict[str, str], **options: str
    ) -> Iterator[tuple[str, Callable[[list[dict[str, Any]]], str]]]:
        """A multipart upload that leaves nothing behind when it fails: its id, and how to finish it."""
        client = self._bucket.client
        upload_id = client.create_multipart_upload(**where, **options)["UploadId"]

        def finish(parts: list[dict[str, Any]]) -> str:
            try:
                answer = client.complete_multipart_upload(**where, UploadId=upload_id, MultipartUpload={"Parts": parts})
            except botocore.exceptions.ClientError as error:
                if code_of(error) != "NoSuchUpload":
                    raise
                # A call whose answer was lost ended the upload, which its repetition does not find any more.
                answer = client.head_object(**where)
                if answer["ETag"].strip('"') != _joined_etag(parts):
                    raise
            return str(answer["ETag"]).strip('"')

        try:
            yield upload_id, finish
        except BaseException:
            self._failed.set()
            with contextlib.suppress(Exception):  # the failure that led here is the one to tell of
                client.abort_multipart_upload(**where, UploadId=upload_id)
            raise

    def _read(self, key: str, start: int, end: int, descriptor: int | None) -> memoryview:
        part = memoryview(bytearray(end - start))
        for piece in self._pieces(key, start, end, part):
            _write(descriptor, start, piece)
            start += len(piece)
        return part

    def _pieces(self, key: str, start: int, end: int, buffer: memoryview) -> Iterator[memoryview]:
        """A range in pieces, of which `buffer` has the last ones; a broken stream is read on from where it broke."""
        at, failures = 0, 0
        while start < end:
            came = 0
            try:
                with self._open(key, start, end) as body:
                    while start < end:
                        self._raise_if_stopped()
                        piece = body.read_into(buffer[at : at + _CHUNK])
                        start, came, at = start + len(piece), came + len(piece), (at + len(piece)) % len(buffer)
                        self._counter.add(len(piece))
                        yield piece
            except BROKEN as error:
                failures = 1 if came >= _HEADWAY else failures + 1
                self._pause(failures, error)

    def _open(self, key: str, start: int, end: int) -> Body:
        """A range of a file; of what a gateway sends as a whole, as some do, the bytes before it are read and left."""
        client, span = self._bucket.client, f"bytes={start}-{end - 1}"
        answer = client.get_object(**self._bucket.place(key), Range=span)
        if "ContentRange" in answer:
            return Body(answer["Body"], end - start, client.meta.endpoint_url)
        self._knows_ranges = False
        body = Body(answer["Body"], end, client.meta.endpoint_url)
        body.skip(start)
        return body

    def _raise_if_stopped(self) -> None:
        if self._failed.is_set():
            raise _StoppedError

    def _with_retries(self, call: Callable[[], T]) -> T:
        """Call until it works: a store that is gone costs a pause, up to a point; the client waits for a busy one."""
        failures = 0
        while True:
            try:
                return call()
            except UNREACHED as error:
                failures += 1
                self._pause(failures, error)

    def _pause(self, failures: int, error: Exception) -> None:
        if failures >= _ATTEMPTS:
            raise error
        if self._failed.wait(random.uniform(0.5, 1) * 0.25 * 2**failures):  # noqa: S311 - spreads retries, no secret
            raise _StoppedError from error


class _StoppedError(Exception):
    """This part was given up because another one failed."""


def _changed(source: SourceFile) -> StoreError:
    return StoreError(f"{source.path} changed while it was published; publish when nothing writes to it.")


def _joined_etag(parts: list[dict[str, Any]]) -> str:
    """The ETag of what these parts make together."""
    digests = b"".join(bytes.fromhex(part["ETag"].strip('"')) for part in parts)
    return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(parts)}"


def _crc32(body: bytes) -> str:
    return base64.b64encode(struct.pack(">I", zlib.crc32(body))).decode()


def _stamp(file: io.FileIO | io.BytesIO) -> tuple[int, int] | None:
    if isinstance(file, io.BytesIO):
        return None
    stat = os.fstat(file.fileno())
    return stat.st_size, stat.st_mtime_ns


def _write(descriptor: int | None, start: int, piece: memoryview) -> None:
    written = 0
    while descriptor is not None and written < len(piece):
        written += os.pwrite(descriptor, piece[written:], start + written)


@contextlib.contextmanager
def _target(download: Download) -> Iterator[int | None]:
    if download.target is None:
        yield None
        return
    download.target.parent.mkdir(parents=True, exist_ok=True)
    emptied = 0 if download.segment else os.O_TRUNC
    descriptor = os.open(download.target, os.O_WRONLY | os.O_CREAT | emptied, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
