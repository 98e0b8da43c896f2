"""The records in a file, one after another: a file of any size is never in memory as a whole.

Here is also why a record may be refused, on its way from a file to an example.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO

import ijson
import msgspec

from tunegate.api.errors import DataError

_MARK = b"\xef\xbb\xbf"  # what some editors put before UTF-8


class Reason(StrEnum):
    """Why a record becomes no example: it can't be read, is no dialogue, or is longer than asked for."""

    NOT_JSON = "NotJson"
    OTHER_CELLS = "OtherCells"
    NOT_AN_OBJECT = "NotAnObject"
    COLUMN_MISSING = "ColumnMissing"
    BAD_HISTORY = "BadHistory"
    BAD_MESSAGE = "BadMessage"
    TOOL_TURN = "ToolTurn"
    UNKNOWN_ROLE = "UnknownRole"
    NO_TEXT = "NoText"
    RESERVED_TEXT = "ReservedText"
    NOT_IN_TURN = "NotInTurn"
    TOO_LONG = "TooLong"


class RecordError(Exception):
    """A record that can't be used: the kind of reason, and a sentence with what is wrong in this one."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Record:
    """What stands in a file at a line, counted from 1; a `value` that can't be read is a RecordError."""

    file: str
    line: int
    value: Any


def read_records(path: Path, stream: BinaryIO) -> Iterator[tuple[int, Any]]:
    """Each record with its line (its place in the list, for a list in .json); `stream` is `path`, opened.

    An unreadable record comes as a RecordError. Raises DataError where the file can't be read on, or holds no record.
    """
    empty = True
    try:
        for line, record in READERS[path.suffix](stream):
            empty = False
            yield line, record
    except (ValueError, csv.Error, ijson.JSONError) as error:
        remedy = "repair it, or take it out of the data set"
        raise DataError(f"{path} can't be read as {path.suffix[1:]}: {error}; {remedy}.") from None
    if empty:
        raise DataError(f"{path} holds no records; fill it, or take it out of the data set.")


def _json_lines(stream: BinaryIO) -> Iterator[tuple[int, Any]]:
    for line, text in enumerate(stream, start=1):
        if line == 1:
            text = text.removeprefix(_MARK)
        if text.strip():
            try:
                yield line, msgspec.json.decode(text)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                yield line, RecordError(Reason.NOT_JSON, f"not valid JSON: {error}")


def _json(stream: BinaryIO) -> Iterator[tuple[int, Any]]:
    """A list, or JSON lines under the other name, which many have and other programs accept."""
    start = len(_MARK) if stream.read(len(_MARK)) == _MARK else 0
    stream.seek(start)
    first = stream.read(1)
    while first.isspace():
        first = stream.read(1)
    stream.seek(start)
    if first == b"{":
        yield from _json_lines(stream)
    elif first in (b"[", b""):
        yield from enumerate(ijson.items(stream, "item", use_float=True) if first else (), start=1)
    else:
        raise ValueError("it is neither a list nor one object a line")


def _csv(stream: BinaryIO) -> Iterator[tuple[int, Any]]:
    csv.field_size_limit(sys.maxsize)  # a long answer is no mistake
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    reader = csv.DictReader(text, strict=True)
    try:
        for record in reader:
            differs = None in record or None in record.values()
            error = RecordError(Reason.OTHER_CELLS, "it has other cells than the first line")
            yield reader.line_num, error if differs else record
    finally:
        text.detach()  # the caller, who opened the file, closes it


READERS: dict[str, Callable[[BinaryIO], Iterator[tuple[int, Any]]]] = {
    ".json": _json,
    ".jsonl": _json_lines,
    ".csv": _csv,
}
