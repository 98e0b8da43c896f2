"""The records in a file, one after another: a file of any size is never in memory as a whole.

Here is also why a record may be refused, on its way from a file to an example.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from tunegate.api.errors import DataError
from tunegate.files import POINTER

_CHUNK = 1 << 20  # bytes
_ROWS = 256  # of a table, in memory at once
_LARGEST_OBJECT = 1 << 28  # bytes of a file that is one object, read to say what it is
_NEXT = re.compile(r"\}\s*,\s*(?=\{)")  # between two objects of a list, after what can't be read


class Reason(StrEnum):
    """Why a record becomes no example: it can't be read, is no dialogue, or is longer than asked for."""

    NOT_JSON = "NotJson"
    OTHER_CELLS = "OtherCells"
    NOT_AN_OBJECT = "NotAnObject"
    COLUMN_MISSING = "ColumnMissing"
    BAD_HISTORY = "BadHistory"
    BAD_MESSAGE = "BadMessage"
    TOOL_TURN = "ToolTurn"
    BAD_TOOL = "BadTool"
    UNKNOWN_ROLE = "UnknownRole"
    NO_TEXT = "NoText"
    NOTHING_TRAINED = "NothingTrained"
    RESERVED_TEXT = "ReservedText"
    REFUSED_BY_TEMPLATE = "RefusedByTemplate"
    NOT_IN_TURN = "NotInTurn"
    TOO_LONG = "TooLong"
    SAME_ANSWERS = "SameAnswers"
    OTHER_PROMPTS = "OtherPrompts"


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
    """Each record with its line (its place in the list, for a list); `stream` is `path`, opened.

    An unreadable record comes as a RecordError. Raises DataError where the file can't be read on, or holds no record.
    """
    empty = True
    kind = kind_of(path)
    assert kind is not None, path
    try:
        _refuse_pointer(path, stream)
        content = _decompressed(path, stream)
        if kind not in _BINARY:
            check_encoding(path, content.read(_CHUNK))
            content.seek(0)
        for line, record in _READERS[kind](content):
            empty = False
            yield line, record
    except _damages() as error:
        remedy = "repair it, or take it out of the data set"
        raise DataError(f"{path} can't be read as {kind[1:]}: {error}; {remedy}.") from None
    if empty:
        raise DataError(f"{path} holds no records; fill it, or take it out of the data set.")


def kind_of(path: Path) -> str | None:
    """The kind of file that a name says, as `.jsonl` of `rows.jsonl.gz`; None where it can't be read."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in _READERS else None


def _decompressed(path: Path, stream: BinaryIO) -> BinaryIO:
    suffix = path.suffix.lower()
    if suffix not in _COMPRESSIONS:
        return stream
    return cast(BinaryIO, gzip.GzipFile(fileobj=stream) if suffix == ".gz" else _zstd(path).ZstdFile(stream))


def _zstd(path: Path) -> Any:
    """The module of Python 3.14, or what brings it to an older one."""
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError:
        raise DataError(f'{path} needs a package to be read: pip install "tunegate[zstd]"') from None
    return zstd


def _damages() -> tuple[type[Exception], ...]:
    """What reading a damaged file raises."""
    zstd = sys.modules.get("compression.zstd") or sys.modules.get("backports.zstd")
    of_zstd = (zstd.ZstdError,) if zstd else ()
    return (ValueError, csv.Error, EOFError, zlib.error, gzip.BadGzipFile, *of_zstd)


def _refuse_pointer(path: Path, stream: BinaryIO) -> None:
    if stream.read(len(POINTER)) == POINTER:
        raise DataError(
            f"{path} is a Git LFS pointer, not the file itself; fetch it there with `git lfs pull`, or download it."
        )
    stream.seek(0)


def check_encoding(path: Path, head: bytes) -> None:
    """Raise DataError, with the command that converts it, where a text that begins so is not UTF-8.

    A few bytes that are none in a text that is UTF-8 otherwise cost their records only.
    """
    lines = [line for line in head.splitlines()[: -1 if len(head) == _CHUNK else None] if not line.isascii()]
    encoding = ""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in head[:2]:
        encoding = "UTF-16"
    elif lines and not any(_decodes(line, "utf-8") for line in lines):
        encoding = "GB18030" if all(_decodes(line, "gb18030") for line in lines) else "ENCODING"
    if encoding:
        found = "not in UTF-8" if encoding == "ENCODING" else f"in {encoding.replace('GB18030', 'GBK')}, not in UTF-8"
        raise DataError(
            f"{path} is {found}; save it as UTF-8, or convert it: "
            f"iconv -f {encoding} -t UTF-8 {path.name} > utf8-{path.name}"
        )


def _decodes(line: bytes, encoding: str) -> bool:
    try:
        line.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _json(stream: BinaryIO) -> Iterator[tuple[int, Any]]:
    """A list, or one object a line, whatever the file is called: other programs accept both under either name."""
    start = len(codecs.BOM_UTF8) if stream.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8 else 0
    stream.seek(start)
    first = stream.read(1)
    while first.isspace():
        first = stream.read(1)
    stream.seek(start)
    if first == b"[":
        yield from _list(stream)
    elif first == b"{":
        yield from _lines(stream)
    elif first:
        raise ValueError("it is neither a list nor one object a line")


def _lines(stream: BinaryIO) -> Iterator[tuple[int, Any]]:
    start = stream.tell()
    for line, text in enumerate(stream, start=1):
        if text.strip():
            try:
                yield line, _record(text.decode())
            except (ValueError, RecordError) as error:
                if line == 1 and (whole := _one_object(stream, start)) is not None:
                    yield 1, whole
                    return
                yield line, _unreadable(error)


def _one_object(stream: BinaryIO, start: int) -> Any:
    """The object that the whole file is, over several lines; None where it is none. Raises ValueError for a wrapper."""
    here = stream.tell()
    stream.seek(start)
    try:
        found = json.loads(stream.read(_LARGEST_OBJECT))
    except ValueError:
        stream.seek(here)
        return None
    for key, value in found.items():
        if isinstance(value, list) and value and isinstance(value[0], dict) and key not in _OF_ONE_RECORD:
            raise ValueError(f"it is one object with its records under the key {key!r}; write that list alone")
    return found


def _list(stream: BinaryIO) -> Iterator[tuple[int, Any]]:
    """The elements of a list, read as they come; one that can't be read costs itself alone."""
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    text, place, at_end = decode(stream.read(_CHUNK)).lstrip()[1:], 0, False

    def more() -> str:
        nonlocal at_end
        chunk = stream.read(max(_CHUNK, len(text)))  # twice as much: a long element is not begun too often
        at_end = not chunk
        return decode(chunk, at_end)

    while True:
        text = text.lstrip(" \t\r\n,")
        if not text and not at_end:
            text = more()
            continue
        if not text:
            raise ValueError("it is cut off: nothing closes its list")
        if text[0] == "]":
            return
        try:
            value, end = _DECODER.raw_decode(text)
            if end == len(text) and not at_end:
                text += more()  # a number may go on
                continue
        except (ValueError, RecordError) as error:
            after = _NEXT.search(text)
            if after is None and not at_end:
                text += more()
                continue
            if after is None and "]" not in text:
                raise ValueError("it is cut off: nothing closes its list") from None
            value, end = _unreadable(error), after.end() if after else text.rindex("]")
        place += 1
        text = text[end:]
        yield place, value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise RecordError(Reason.NOT_JSON, f"it has the key {twice!r} twice")
    return made


# NaN stands for nothing where pandas wrote it.
_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=lambda _: None)


def _record(text: str) -> Any:
    return _DECODER.decode(text)


def _unreadable(error: Exception) -> RecordError:
    return error if isinstance(error, RecordError) else RecordError(Reason.NOT_JSON, f"not valid JSON: {error}")


def _csv(stream: BinaryIO, delimiter: str = ",") -> Iterator[tuple[int, Any]]:
    csv.field_size_limit(sys.maxsize)  # a long answer is no mistake
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    reader = csv.DictReader(text, delimiter=delimiter, strict=True)
    last = 1
    try:
        for record in reader:
            differs = None in record or None in record.values()
            error = RecordError(Reason.OTHER_CELLS, "it has other cells than the first line")
            last = reader.line_num
            yield last, error if differs else record
    except csv.Error as error:
        if "unexpected end of data" in str(error):
            raise ValueError(f"the record in line {last + 1} opens a quote that nothing closes") from None
        raise
    finally:
        text.detach()  # the caller, who opened the file, closes it


def _parquet(stream: BinaryIO) -> Iterator[tuple[int, Any]]:
    """Some rows at a time: a row group may be the whole file, and pyarrow would read all of one ahead."""
    arrow = _arrow()
    from pyarrow.parquet import ParquetFile

    try:
        batches = ParquetFile(stream, buffer_size=_CHUNK, pre_buffer=False).iter_batches(_ROWS)
        yield from enumerate((_without_nulls(row) for batch in batches for row in batch.to_pylist()), start=1)
    except (OSError, arrow.ArrowException) as error:
        raise ValueError(str(error).splitlines()[0]) from None


def _arrow_file(stream: BinaryIO) -> Iterator[tuple[int, Any]]:
    """What `save_to_disk` of the package datasets leaves: a stream of batches; or a file of them."""
    arrow = _arrow()
    try:
        is_file = stream.read(6) == b"ARROW1"
        stream.seek(0)
        if is_file:
            file = arrow.ipc.open_file(stream)
            batches = (file.get_batch(number) for number in range(file.num_record_batches))
        else:
            batches = iter(arrow.ipc.open_stream(stream))
        yield from enumerate((_without_nulls(row) for batch in batches for row in batch.to_pylist()), start=1)
    except (OSError, arrow.ArrowException) as error:
        raise ValueError(str(error).splitlines()[0]) from None


def _arrow() -> Any:
    try:
        import pyarrow
    except ImportError:
        raise DataError('Parquet files need pyarrow; install it with: pip install "tunegate[parquet]"') from None
    return pyarrow


def _without_nulls(value: Any, *, depth: int = 0) -> Any:
    """A row, whose objects have the keys they were written with: every one of a column comes with the keys of all."""
    if isinstance(value, list):
        return [_without_nulls(part, depth=depth + 1) for part in value]
    if isinstance(value, dict):
        kept = ((key, part) for key, part in value.items() if depth == 0 or part is not None)
        return {key: _without_nulls(part, depth=depth + 1) for key, part in kept}
    return value


_OF_ONE_RECORD = ("messages", "conversations", "conversation", "history", "tools", "prompt", "completion")
_READERS: dict[str, Callable[[BinaryIO], Iterator[tuple[int, Any]]]] = {
    ".json": _json,
    ".jsonl": _json,
    ".csv": _csv,
    ".tsv": partial(_csv, delimiter="\t"),
    ".parquet": _parquet,
    ".arrow": _arrow_file,
}
_BINARY = (".parquet", ".arrow")
_COMPRESSIONS = (".gz", ".zst")
KINDS = f"{', '.join(_READERS)}, each also as {' or '.join(_COMPRESSIONS)}"
