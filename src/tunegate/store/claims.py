"""One publisher at a time for a name, also when publishers are killed.

A claim is a small document beside the versions, which its owner alone writes and renews. Who wants to publish announces
a claim first and looks at the others then: of two at once, at least one sees the other. So a claim needs no conditional
put, only a store whose listing shows what was written. One that was not renewed is taken over, with what it says of
finished files, so that an interrupted publish resumes where it stopped. docs/design/store.md has the interleavings.
"""

from __future__ import annotations

import contextlib
import os
import platform
import random
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from tunegate.api.codec import Resource, prepare
from tunegate.api.errors import StoreError
from tunegate.api.versions import MANIFEST
from tunegate.store.bucket import Bucket
from tunegate.store.transfer import Finished

RENEW_SECONDS = 5.0
STALE_SECONDS = 30.0
_PROCESS = uuid.uuid4().hex
_LIVE: set[str] = set()  # the claims that this process holds


class Owner(Resource, frozen=True, kw_only=True):
    """A claim's process: where its pid means something, the pid, and what tells it from a later one with that pid."""

    host: str
    pid: int
    process: str
    claim: str

    def is_dead(self) -> bool:
        """Whether it certainly runs no more; that can only be known on its own host."""
        if self.host != _host():
            return False
        if self.pid == os.getpid():  # this process, or one that had our number before
            return self.process != _PROCESS or self.claim not in _LIVE
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False


class ClaimRecord(Resource, frozen=True, kw_only=True, omit_defaults=True):
    """Who publishes, nobody after a failure; which files are finished, by path; whose claims this one took over.

    is_share: it sends some of the files, beside others that do so, and will not publish.
    """

    owner: Owner | None
    files: dict[str, Finished] = {}
    over: tuple[str, ...] = ()
    is_share: bool = False


@dataclass(frozen=True)
class _FoundClaim:
    """A claim as it lies in the store; `age` in seconds since it was written."""

    key: str
    record: ClaimRecord
    age: float

    @property
    def is_live(self) -> bool:
        owner = self.record.owner
        return owner is not None and self.age < STALE_SECONDS and not owner.is_dead()


class Claim:
    """The right to publish one name, renewed in the background until the `with` of `claimed` ends."""

    def __init__(self, bucket: Bucket, name: str, found: Sequence[_FoundClaim], *, is_share: bool = False) -> None:
        """Announce the claim; `found` are those that nobody holds any more. `renew` begins when it is alone."""
        self._bucket = bucket
        self._name = name
        self.is_share = is_share
        self._owner = Owner(host=_host(), pid=os.getpid(), process=_PROCESS, claim=uuid.uuid4().hex)
        self._key = f"{_folder(name)}{self._owner.claim}.json"
        self._over = tuple(other.key for other in found)
        self._files = {path: file for other in found for path, file in other.record.files.items()}
        self._is_lost = False
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._renew, name="tunegate-claim", daemon=True)
        _LIVE.add(self._owner.claim)
        try:
            self._save(self._owner)
        except BaseException:
            _LIVE.discard(self._owner.claim)
            raise

    @property
    def finished(self) -> dict[str, Finished]:
        """Files that this or an earlier attempt finished."""
        return dict(self._files)

    def is_alone(self) -> bool:
        """Whether nobody else holds or announced a claim; then this one holds, and is renewed from now on.

        Those who have a share each are alone together.
        """
        others = [other for other in _list_claims(self._bucket, self._name) if other.key != self._key]
        if any(other.is_live and not (self.is_share and other.record.is_share) for other in others):
            return False
        self._thread.start()
        return True

    def withdraw(self) -> None:
        """Take the announcement back."""
        _LIVE.discard(self._owner.claim)
        with contextlib.suppress(StoreError):  # then it is stale soon
            self._bucket.put(self._key, msgspec.json.encode(ClaimRecord(owner=None)))
            self._bucket.delete(self._key)

    def require(self) -> None:
        """Raises StoreError when another publisher is known to have taken the claim."""
        if self._is_lost:
            raise StoreError(f"another publisher took over {self._name} while this one stood still; publish again.")

    def note(self, path: str, file: Finished) -> None:
        """Remember a finished file; it is saved with the next renewal."""
        with self._lock:
            self._files[path] = file

    def confirm(self) -> None:
        """Make sure that the claim is still ours. Raises StoreError when another publisher took it."""
        self._check()
        self.require()

    def end(self, *, published: bool) -> None:
        """Give the claim up: after a publish all claims on the name go, after a failure the finished files stay."""
        self._ended.set()
        self._thread.join()
        _LIVE.discard(self._owner.claim)
        if published:
            self._bucket.tidy(*self._over, self._key)
        elif not self._is_lost:
            self._save(None)
            if not self._files and not self._over:
                self._bucket.tidy(self._key)

    def _renew(self) -> None:
        while not self._ended.wait(RENEW_SECONDS) and not self._is_lost:
            with contextlib.suppress(StoreError):  # unreachable for now; confirm() decides in the end
                self._check()

    def _check(self) -> None:
        """Renew the claim if it is still there, then see whether anybody took it over or even published.

        The order matters: who takes over writes first, too, and then sees this renewal; one of both gives way.
        """
        if self._is_lost or self._bucket.get(self._key) is None:
            self._is_lost = True
            return
        self._save(self._owner)
        others = _list_claims(self._bucket, self._name)
        self._is_lost = (
            any(self._key in other.record.over for other in others)
            or self._bucket.get(f"{self._name}/{MANIFEST}") is not None
        )

    def _save(self, owner: Owner | None) -> None:
        with self._lock:
            record = ClaimRecord(owner=owner, files=self._files, over=self._over, is_share=self.is_share)
            self._bucket.put(self._key, msgspec.json.encode(record))


@contextlib.contextmanager
def claimed(bucket: Bucket, name: str) -> Iterator[Claim]:
    """Hold the claim on a name, after waiting for a publisher that is at work. Raises StoreError."""
    while (claim := _try_to_claim(bucket, name)) is None:
        time.sleep(random.uniform(0.1, 0.3))  # noqa: S311 - parts those who announced at once, no secret
    try:
        yield claim
    except BaseException:
        with contextlib.suppress(StoreError):  # the failure that led here is the one to tell of
            claim.end(published=False)
        raise
    claim.end(published=True)


@contextlib.contextmanager
def shared(bucket: Bucket, name: str) -> Iterator[Claim | None]:
    """Hold a claim to send some files of a name, beside others that do so; None where somebody publishes it already.

    Who is to publish waits until this ends, and takes over what it finished, also of one that was killed.
    """
    claim = Claim(bucket, name, (), is_share=True)
    if not claim.is_alone():
        claim.withdraw()
        yield None
        return
    try:
        yield claim
    finally:
        claim.end(published=False)


def is_claimed(bucket: Bucket, name: str) -> bool:
    """Whether anybody sends files of a name just now."""
    return any(found.is_live for found in _list_claims(bucket, name))


def _try_to_claim(bucket: Bucket, name: str) -> Claim | None:
    """Announce a claim where nobody holds one, and keep it if nobody else did; None means that it is not free."""
    found = _list_claims(bucket, name)
    if any(other.is_live for other in found):
        return None
    claim = Claim(bucket, name, found)
    try:
        if claim.is_alone():
            return claim
    except BaseException:
        claim.withdraw()
        raise
    claim.withdraw()
    return None


def _list_claims(bucket: Bucket, name: str) -> list[_FoundClaim]:
    """The claims on a name, oldest first."""
    ages = bucket.ages(_folder(name))
    found = []
    for key in sorted(ages, key=lambda key: -ages[key]):
        if body := bucket.get(key):  # it may go meanwhile
            found.append(_FoundClaim(key, msgspec.json.decode(body, type=ClaimRecord), ages[key]))
    return found


def _folder(name: str) -> str:
    return f".tunegate/publishing/{name}/"


def _host() -> str:
    """Where a pid means something: the host, and on Linux the pid namespace, which containers don't share."""
    try:
        return f"{platform.node()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return platform.node()


prepare(ClaimRecord)
