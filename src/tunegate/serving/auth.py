"""Who may ask, and how much: API keys of which a file holds the hashes, each with limits of its own.

The file is read again when it changes, so keys are added and revoked without a restart. A key is 256 random bits: its
plain SHA-256 can't be reversed, and a slow hash would only slow down answers.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import math
import re
import secrets
import time
from collections import defaultdict, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from shlex import quote
from typing import Annotated

import msgspec

from tunegate.api.codec import Resource, from_yaml
from tunegate.api.errors import UsageError
from tunegate.serving.events import ApiError

logger = logging.getLogger(__name__)
WINDOW_SECONDS = 60.0
PREFIX = "tg-"
_BEARER = re.compile(r"Bearer\s+", re.IGNORECASE)

Limit = Annotated[int, msgspec.Meta(ge=1)]


class ApiKey(Resource, frozen=True, kw_only=True):
    """One key. Several may have the same name, and then share its limits: the old and the new one of a rotation.

    sha256: of the key, in hex. requests_per_minute, concurrent: None is without limit.
    """

    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    created: datetime | None = None
    requests_per_minute: Limit | None = None
    concurrent: Limit | None = None


class KeyFile(Resource, frozen=True, kw_only=True):
    """What `--keys FILE` holds."""

    keys: tuple[ApiKey, ...] = ()


def new_key() -> str:
    """A key that nobody can guess."""
    return PREFIX + secrets.token_urlsafe(32)


def hash_of(key: str) -> str:
    """What is kept of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def given_key(authorization: str) -> str:
    """The key in an Authorization header, `Bearer KEY` or, as Alibaba Cloud's EAS has it, `KEY` alone."""
    return _BEARER.sub("", authorization.strip(), count=1)


def read_keys(path: Path) -> KeyFile:
    """Raises UsageError when the file can't be read or is no list of keys."""
    try:
        return from_yaml(path.read_bytes(), KeyFile, str(path))
    except FileNotFoundError:
        made = f"tunegate keys create NAME --keys {quote(str(path))}"
        raise UsageError(f"There is no key file {path}; make one with: {made}") from None
    except OSError as error:
        raise UsageError(f"The key file {path} can't be read ({error.strerror}); make it readable.") from None


class Keys:
    """The keys in a file as it is now. While it can't be read, the last good ones stay, and the log says so."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._keys = read_keys(path).keys
        self._read_at = self._state()

    def find(self, key: str) -> ApiKey | None:
        """Compares with all keys in constant time: how long it takes tells nothing of any."""
        state = self._state()
        if state != self._read_at:
            self._read_at = state
            try:
                self._keys = read_keys(self._path).keys
            except UsageError as error:
                logger.warning("the key file can't be used; the keys of before stay", extra={"problem": str(error)})
            else:
                logger.info("keys were read again", extra={"keys": len(self._keys)})
        asked = hash_of(key)
        found = None
        for known in self._keys:
            if hmac.compare_digest(known.sha256, asked):
                found = known
        return found

    def _state(self) -> tuple[int, int, int] | None:
        """Of the file behind all links: a mounted Secret changes by a link that leads elsewhere."""
        with suppress(OSError):
            found = self._path.stat()
            return found.st_ino, found.st_mtime_ns, found.st_size
        return None


@dataclass
class _Use:
    """What one key does: requests under way, and when those of the last minute began."""

    under_way: int = 0
    began: deque[float] = field(default_factory=deque)


class Admission:
    """Lets requests in. `keys` is None where nobody needs one; `capacity` is how many requests may be under way."""

    def __init__(self, keys: Keys | None, capacity: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._keys = keys
        self._capacity = capacity
        self._clock = clock
        self._uses: defaultdict[str, _Use] = defaultdict(_Use)
        self._under_way = 0

    def identify(self, authorization: str | None) -> ApiKey | None:
        """The key of a request; None where nobody needs one. Raises ApiError 401."""
        if self._keys is None:
            return None
        if authorization is None:
            message = "The API key is missing; send it as the header `Authorization: Bearer KEY`."
            raise ApiError(401, message, reason="key", code="invalid_api_key")
        key = self._keys.find(given_key(authorization))
        if key is None:
            message = "The API key is not known here; ask whoever runs this server for one."
            raise ApiError(401, message, reason="key", code="invalid_api_key")
        return key

    def enter(self, key: ApiKey | None) -> None:
        """Count a request in, which must `leave`. Raises ApiError 429 that says when to ask again."""
        if self._under_way >= self._capacity:
            raise _too_many(f"This server answers {self._capacity} requests at a time", 1, "capacity")
        if key is not None:
            self._count(key, self._uses[key.name])
        self._under_way += 1

    def leave(self, key: ApiKey | None) -> None:
        self._under_way -= 1
        if key is not None:
            self._uses[key.name].under_way -= 1

    def _count(self, key: ApiKey, use: _Use) -> None:
        if key.concurrent is not None and use.under_way >= key.concurrent:
            raise _too_many(f"The key {key.name} may have {key.concurrent} requests under way", 1, "concurrent")
        if key.requests_per_minute is not None:
            now = self._clock()
            while use.began and use.began[0] <= now - WINDOW_SECONDS:
                use.began.popleft()
            if len(use.began) >= key.requests_per_minute:
                seconds = math.ceil(use.began[0] + WINDOW_SECONDS - now)
                raise _too_many(f"The key {key.name} may ask {key.requests_per_minute} times a minute", seconds, "rate")
            use.began.append(now)
        use.under_way += 1


def _too_many(limit: str, seconds: int, reason: str) -> ApiError:
    message = f"{limit}; ask again in {seconds} s."
    return ApiError(429, message, reason=reason, code="rate_limit_exceeded", retry_after=seconds)
