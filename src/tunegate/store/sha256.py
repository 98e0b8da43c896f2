"""sha256 that can begin within a file, so that one file is verified by several cores.

Where one segment ends, sha256 has come to a state of 32 bytes, with which the next one begins. A manifest has these
states of large files. They need no trust: each segment has to arrive at the state that the next one begins with, and
the last one at the sha256 that the version's digest covers. Python's hashlib does not give states; the libcrypto that
it calls does, and where Python was built in another way, files are read as a whole.
"""

from __future__ import annotations

import ctypes
import hashlib
import io
import struct
from dataclasses import dataclass
from itertools import pairwise

SEGMENT = 256 << 20  # bytes from one state to the next, by which manifests are read: not to be changed
_BEGIN = "6a09e667bb67ae853c6ef372a54ff53a510e527f9b05688c1f83d9ab5be0cd19"  # FIPS 180-4, 5.3.3
_CHUNK = 1 << 20


class _Context(ctypes.Structure):
    """SHA256_CTX of openssl/sha.h, the same since 0.9.8."""

    _fields_ = [
        ("h", ctypes.c_uint32 * 8),
        ("bits", ctypes.c_uint32 * 2),
        ("data", ctypes.c_uint32 * 16),
        ("num", ctypes.c_uint),
        ("md_len", ctypes.c_uint),
    ]


def _load() -> ctypes.CDLL | None:
    """The libcrypto of Python's own hashlib, if it has what is called here."""
    try:
        import _hashlib

        found = ctypes.CDLL(_hashlib.__file__)  # symbols of what it is linked to are found through it
        found.SHA256_Update.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
        found.SHA256_Final.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
    except (ImportError, AttributeError, OSError):
        return None
    return found


_LIBCRYPTO = _load()


@dataclass(frozen=True)
class Segment:
    """The bytes of a file from `start` to `end`, and what sha256 comes to before and after them: at the end of the
    file the sha256, elsewhere a state."""

    start: int
    end: int
    before: str
    after: str


@dataclass(frozen=True)
class Hashed:
    """The sha256 of a file, and its states after each SEGMENT but the last; none where they are not known."""

    sha256: str
    states: tuple[str, ...] = ()

    def segments(self, size: int) -> tuple[Segment, ...]:
        """What of a file of this size can be read on its own; nothing where that is only the file."""
        starts = range(0, size, SEGMENT)
        if _LIBCRYPTO is None or not self.states or len(self.states) != len(starts) - 1:
            return ()
        known = pairwise([_BEGIN, *self.states, self.sha256])
        return tuple(
            Segment(start, min(start + SEGMENT, size), before, after)
            for start, (before, after) in zip(starts, known, strict=True)
        )


class Sha256:
    """As hashlib's, begun after `done` bytes, a multiple of SEGMENT, with the state that they led to."""

    def __init__(self, state: str = _BEGIN, done: int = 0) -> None:
        bits = done * 8
        words = struct.unpack(">8I", bytes.fromhex(state))
        self._context = _Context(h=words, bits=(bits & 0xFFFFFFFF, bits >> 32), md_len=32)

    def update(self, data: bytes | memoryview) -> None:
        """Add these bytes; a view must be of memory that can be written."""
        assert _LIBCRYPTO is not None
        place = data if isinstance(data, bytes) else (ctypes.c_char * len(data)).from_buffer(data)
        _LIBCRYPTO.SHA256_Update(ctypes.byref(self._context), place, len(data))

    def state(self) -> str:
        """What it has come to, after a multiple of 64 bytes."""
        return struct.pack(">8I", *self._context.h).hex()

    def hexdigest(self) -> str:
        """The sha256 of all bytes; nothing can be added after it."""
        assert _LIBCRYPTO is not None
        digest = ctypes.create_string_buffer(32)
        _LIBCRYPTO.SHA256_Final(digest, ctypes.byref(self._context))
        return digest.raw.hex()


class Hasher:
    """sha256 of a file that comes in order, in pieces of which none reaches over the end of a segment."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._sha256 = Sha256() if size > SEGMENT and _LIBCRYPTO else hashlib.sha256()
        self._done = 0
        self._states: list[str] = []

    def update(self, data: bytes | memoryview) -> None:
        self._sha256.update(data)
        self._done += len(data)
        if isinstance(self._sha256, Sha256) and self._done % SEGMENT == 0:
            self._states.append(self._sha256.state())

    def hashed(self) -> Hashed:
        """Of all that came."""
        last = bool(self._states) and self._done % SEGMENT == 0
        return Hashed(self._sha256.hexdigest(), tuple(self._states[: -1 if last else None]))


def hash_file(file: io.FileIO | io.BytesIO, size: int) -> Hashed:
    """Read a file to its end."""
    hasher, buffer = Hasher(size), memoryview(bytearray(min(_CHUNK, size) or 1))
    while count := file.readinto(buffer):
        hasher.update(buffer[:count])
    return hasher.hashed()
