"""One publisher at a time for a name, also when publishers are killed.

A claim is a small document beside the versions. Its owner renews it; one that was not renewed is taken over, with
what it says of finished files, so that an interrupted publish goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator
from email.utils import parsedate_to_datetime

import botocore.exceptions
import msgspec

from tunegate.api.codec import Resource
from tunegate.api.errors import StoreError
from tunegate.store.client import Bucket, explained, is_missing

RENEW_SECONDS = 5.0
STALE_SECONDS = 30.0
_PROCESS = uuid.uuid4().hex
_LIVE: set[str] = set()  # the claims that this process holds


class Finished(Resource, frozen=True, kw_only=True):
    """A file that is in the store as a whole."""

    size: int
    sha256: str
    etag: str


class Owner(Resource, frozen=True, kw_only=True):
    """A claim's process: where its pid means something, the pid, and what tells it from a later one with that pid."""

    host: str
    pid: int
    process: str
    claim: str


class ClaimRecord(Resource, frozen=True, kw_only=True):
    """Who publishes, nobody after a failure, and which files are finished, by path."""

    owner: Owner | None
    files: dict[str, Finished] = {}


class Claim:
    """The right to publish one name, renewed in the background until the `with` of `claimed` ends."""

    def __init__(self, bucket: Bucket, name: str, owner: Owner, etag: str, found: dict[str, Finished]) -> None:
        self._bucket = bucket
        self._name = name
        self._owner = owner
        self._etag: str | None = etag
        self._files = dict(found)
        self._ended = threading.Event()
        _LIVE.add(owner.claim)
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._renew, name="tunegate-claim", daemon=True)
        self._thread.start()

    @property
    def finished(self) -> dict[str, Finished]:
        """Files that this or an earlier attempt finished."""
        return dict(self._files)

    def require(self) -> None:
        """Raises StoreError when another publisher is known to have taken the claim."""
        if self._etag is None:
            raise StoreError(f"another publisher took over {self._name} while this one stood still; publish again.")

    def note(self, path: str, file: Finished) -> None:
        """Remember a finished file; it is saved with the next renewal."""
        with self._lock:
            self._files[path] = file

    def confirm(self) -> None:
        """Make sure that the claim is still ours. Raises StoreError when another publisher took it."""
        self._save(self._owner)
        self.require()

    def end(self, *, published: bool) -> None:
        """Give the claim up: nothing is left of it after a publish, the finished files after a failure."""
        self._ended.set()
        self._thread.join()
        _LIVE.discard(self._owner.claim)
        if self._etag is None:
            return
        if published or not self._files:
            self._bucket.delete(_key(self._name))
        else:
            self._save(None)

    def _renew(self) -> None:
        while not self._ended.wait(RENEW_SECONDS):
            with contextlib.suppress(StoreError):  # unreachable for now; confirm() decides in the end
                self._save(self._owner)

    def _save(self, owner: Owner | None) -> None:
        with self._lock:
            if self._etag is not None:
                body = msgspec.json.encode(ClaimRecord(owner=owner, files=self._files))
                self._etag = self._bucket.put_if(_key(self._name), body, IfMatch=self._etag)


@contextlib.contextmanager
def claimed(bucket: Bucket, name: str) -> Iterator[Claim]:
    """Hold the claim on a name, after waiting for a publisher that is at work. Raises StoreError."""
    while (claim := _take(bucket, name)) is None:
        time.sleep(0.2)
    try:
        yield claim
    except BaseException:
        with contextlib.suppress(StoreError):  # the failure that led here is the one to tell of
            claim.end(published=False)
        raise
    claim.end(published=True)


def _take(bucket: Bucket, name: str) -> Claim | None:
    """Take the claim if it is free; None means that it is not."""
    found = _look(bucket, _key(name))
    record, etag, age = found if found else (ClaimRecord(owner=None), None, 0.0)
    if record.owner is not None and age < STALE_SECONDS and not _is_dead(record.owner):
        return None
    condition = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
    owner = Owner(host=_host(), pid=os.getpid(), process=_PROCESS, claim=uuid.uuid4().hex)
    body = msgspec.json.encode(ClaimRecord(owner=owner, files=record.files))
    taken = bucket.put_if(_key(name), body, **condition)
    return Claim(bucket, name, owner, taken, record.files) if taken else None


def _look(bucket: Bucket, key: str) -> tuple[ClaimRecord, str, float] | None:
    """The claim's record, ETag and seconds since its last renewal, both by the store's clock."""
    with explained(bucket.location.uri):
        try:
            answer = bucket.client.get_object(**bucket.place(key))
        except botocore.exceptions.ClientError as error:
            if is_missing(error):
                return None
            raise
        record = msgspec.json.decode(answer["Body"].read(), type=ClaimRecord)
    now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
    return record, answer["ETag"], (now - answer["LastModified"]).total_seconds()


def _key(name: str) -> str:
    return f".tunegate/publishing/{name}.json"


def _host() -> str:
    """Where a pid means something: the host, and on Linux the pid namespace, which containers don't share."""
    try:
        return f"{platform.node()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return platform.node()


def _is_dead(owner: Owner) -> bool:
    """Whether the owner certainly runs no more; that can only be told on its own host."""
    if owner.host != _host():
        return False
    if owner.pid == os.getpid():  # this process, or one that had our number before
        return owner.process != _PROCESS or owner.claim not in _LIVE
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
