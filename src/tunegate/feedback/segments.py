"""Segments: compressed files of JSON lines, in which the logs of answers and of votes lie in the store.

A segment has one writer, whose name is in its key, so nobody else ever writes it. One that grows is written again as a
whole, under the same key: a store shows the old bytes or the new ones.
"""

from __future__ import annotations

import re
import secrets
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime
from typing import Protocol, TypeVar

from tunegate.api.codec import Resource, from_json
from tunegate.api.errors import UsageError

T = TypeVar("T", bound=Resource)
_GZIP = 31  # zlib's windowBits for gzip's header and checksum
_KEY = re.compile(r".*/(?P<day>\d{4}-\d\d-\d\d)/[0-9a-f]{12}-\d{6,}\.jsonl\.gz")


class Entry(Protocol):
    """One object of a listing."""

    @property
    def key(self) -> str: ...
    @property
    def etag(self) -> str: ...


class Documents(Protocol):
    """What the logs need of the store."""

    def put(self, key: str, body: bytes) -> None: ...
    def get(self, key: str) -> bytes | None: ...
    def entries(self, prefix: str) -> Sequence[Entry]: ...
    def folders(self, prefix: str) -> list[str]: ...
    def delete(self, key: str) -> None: ...


class Segment:
    """One that grows: lines are compressed once each, and the bytes of all so far can be had at any time."""

    def __init__(self) -> None:
        self.rows = 0
        self._stream = zlib.compressobj(wbits=_GZIP)
        self._begun = b""

    def __len__(self) -> int:
        return len(self._begun)

    def with_lines(self, lines: Iterable[bytes]) -> Segment:
        """A segment with these lines besides; this one stays as it is."""
        grown, added = Segment(), [*lines]
        grown.rows = self.rows + len(added)
        grown._stream = self._stream.copy()
        data = grown._stream.compress(b"".join(line + b"\n" for line in added))
        grown._begun = self._begun + data + grown._stream.flush(zlib.Z_SYNC_FLUSH)
        return grown

    def to_bytes(self) -> bytes:
        return self._begun + self._stream.copy().flush()


def read_lines(body: bytes) -> tuple[list[bytes], bool]:
    """The whole lines of a segment, and whether it ends as it should: False when it was cut, or damaged, somewhere."""
    stream, text, is_whole = zlib.decompressobj(wbits=_GZIP), b"", False
    try:
        text = stream.decompress(body)
        is_whole = stream.eof
    except zlib.error:
        text = _until_damage(body)
    *lines, tail = text.split(b"\n")
    return [line for line in lines if line], is_whole and not tail


def records_in(key: str, body: bytes, kind: type[T], damaged: list[str]) -> Iterator[T]:
    """The records of a segment. Whether a part of it is gone, and how many lines are no such record and why, is added
    to `damaged` in sentences."""
    lines, is_whole = read_lines(body)
    damaged += [] if is_whole else [f"{key} in the store is cut; what is whole of it was read."]
    faults = Counter[str]()
    for line in lines:
        try:
            record = from_json(line, kind, key)
        except UsageError as error:
            faults[str(error)] += 1
        else:
            yield record
    damaged += [f"{count} of {len(lines)} lines left out: {fault}" for fault, count in faults.most_common()]


def _until_damage(body: bytes) -> bytes:
    """What can be had of a segment in the middle of which bytes differ from what was written."""
    stream, found = zlib.decompressobj(wbits=_GZIP), bytearray()
    try:
        for at in range(0, len(body), 64):
            found += stream.decompress(body[at : at + 64])
    except zlib.error:
        pass
    return bytes(found)


def new_writer() -> str:
    """A name that no other writer has."""
    return secrets.token_hex(6)


def segment_key(folder: str, day: date, writer: str, number: int) -> str:
    """Where the segment with this number of `writer` lies."""
    return f"{folder}/{day.isoformat()}/{writer}-{number:06}.jsonl.gz"


def days_in(store: Documents, folder: str) -> list[date]:
    """The days that a folder has segments of, oldest first. What else somebody put there is none of ours."""
    found = []
    for name in store.folders(f"{folder}/"):
        with suppress(ValueError):
            day = date.fromisoformat(name)
            found += [day] if day.isoformat() == name else []
    return sorted(found)


def day_of(key: str) -> date | None:
    """The day of the answers in a segment; None for a key of something else."""
    found = _KEY.fullmatch(key)
    return date.fromisoformat(found["day"]) if found else None


def utc_day(moment: datetime) -> date:
    return moment.astimezone(UTC).date()
