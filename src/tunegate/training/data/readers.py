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
_HALF = re.compile(r"\\u[dD][89a-fA-F]")  # of a character that JSON writes as two, or all of one
# What a file is by its first bytes, whatever it is called, and what to do with it.
_MAGIC = {
    b"\x1f\x8b": "is compressed by gzip; add .gz to its name",
    b"\x28\xb5\x2f\xfd": "is compressed by zstd; add .zst to its name",
    b"PK\x03\x04": "is a zip archive or a workbook of Excel; unpack it, or save the sheet as CSV in UTF-8",
    b"PAR1": "is a Parquet file; call it .parquet",
    b"ARROW1": "is an Arrow file; call it .arrow",
    b"<": "is a page of HTML or XML and no data; download the file itself",
}


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
            head = content.read(_CHUNK)
            _refuse_other_kind(path, head)
            check_encoding(path, head)
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
    first = stream.read(1)
    stream.seek(0)
    if first in (b"{", b"["):
        raise ValueError(f"it is not compressed; call it {path.stem}")
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


def _refuse_other_kind(path: Path, head: bytes) -> None:
    for magic, what in _MAGIC.items():
        if head.startswith(magic):
            raise DataError(f"{path} is not what its name says: it {what}.")


def check_encoding(path: Path, head: bytes) -> None:
    """Raise DataError, with the command that converts it, where a text that begins so is not UTF-8.

    A few bytes that are none in a text that is UTF-8 otherwise cost their records only.
    """
    lines = [line for line in head.splitlines()[: -1 if len(head) == _CHUNK else None] if not line.isascii()]
    encoding = _wide_encoding(head)
    if not encoding and lines and not any(_decodes(line, "utf-8") for line in lines):
        encoding = _encoding_of(lines)
    if encoding:
        found = "not in UTF-8" if encoding == "ENCODING" else f"in {encoding.replace('GB18030', 'GBK')}, not in UTF-8"
        raise DataError(
            f"{path} is {found}; save it as UTF-8, or convert it: "
            f"iconv -f {encoding} -t UTF-8 {path.name} > utf8-{path.name}"
        )


def _wide_encoding(head: bytes) -> str:
    """UTF-32 or UTF-16 by its mark, or by the zeros of a text that begins with ASCII; else nothing."""
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "UTF-32"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16"
    zeros = "".join("0" if byte == 0 else "1" for byte in head[:2])
    return {"01": "UTF-16BE", "10": "UTF-16LE", "00": "UTF-32BE"}.get(zeros, "")


def _encoding_of(lines: list[bytes]) -> str:
    """What lines that are no UTF-8 most likely are: the bytes of one East Asian encoding are mostly valid in others.

    Nearly all characters of a Chinese text in GBK are also those of the older GB 2312, which the others' rarely are.
    """
    text = b"".join(lines)
    strange = text.decode("gb2312", "replace").count("\ufffd")
    if all(_decodes(line, "gb18030") for line in lines) and strange * 20 <= sum(byte > 127 for byte in text):
        return "GB18030"
    likely = (("big5", "BIG5"), ("cp932", "CP932"), ("gb18030", "GB18030"))
    return next((name for codec, name in likely if all(_decodes(line, codec) for line in lines)), "ENCODING")


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
                record = _record(text.decode())
                if line == 1 and _is_at_end(stream):
                    _refuse_wrapper(record)
                yield line, record
            except (UnicodeDecodeError, RecordError) as error:
                if line == 1 and (whole := _one_object(stream, start)) is not None:
                    yield 1, whole
                    return
                yield line, _unreadable(error)


def _is_at_end(stream: BinaryIO) -> bool:
    here = stream.tell()
    found = stream.read(1)
    stream.seek(here)
    return not found


def _one_object(stream: BinaryIO, start: int) -> Any:
    """The object that the whole file is, over several lines; None where it is none. Raises ValueError for a wrapper."""
    here = stream.tell()
    stream.seek(start)
    try:
        found = _record(stream.read(_LARGEST_OBJECT).decode())
    except (UnicodeDecodeError, RecordError):
        stream.seek(here)
        return None
    _refuse_wrapper(found)
    return found


def _refuse_wrapper(found: Any) -> None:
    """Raise ValueError for one object that is a whole file and holds the records."""
    for key, value in found.items() if isinstance(found, dict) else ():
        holds_objects = isinstance(value, list) and value and isinstance(value[0], dict)
        if holds_objects and key not in _OF_ONE_RECORD and not value[0].keys() & {"role", "from"}:
            raise ValueError(f"it is one object with its records under the key {key!r}; write that list alone")


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
            _refuse_halves(value, text[:end])
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
    try:
        value = _DECODER.decode(text)
    except ValueError as error:
        raise RecordError(Reason.NOT_JSON, f"not valid JSON: {error}{_habit(text)}") from None
    _refuse_halves(value, text)
    return value


def _habit(text: str) -> str:
    """What a line that is no JSON looks like instead, where that is known."""
    line = text.strip()
    if "\r" in line:
        return "; its lines end with a carriage return alone, as on old Macs: convert them with tr '\\r' '\\n'"
    if line.endswith("},"):
        return "; take the comma at the end of each line away, or put the lines between [ and ]"
    if line.startswith("{") and ("}" not in line or re.search(r"\}\s*\{", line)):
        return "; write each record on a line of its own: jq -c . FILE > rows.jsonl"
    if re.match(r"\{\s*'", line):
        return "; it is written by Python's print or str: write it with json.dumps"
    return ""


def _refuse_halves(value: Any, text: str) -> None:
    """Raise RecordError for half a character, as where an escaped emoji was cut: no tokenizer takes it."""
    if _HALF.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = error.object[error.start].encode("unicode_escape").decode()
            raise RecordError(
                Reason.NOT_JSON, f"it has half a character ({half}), as of an emoji that was cut"
            ) from None


def _unreadable(error: Exception) -> RecordError:
    return error if isinstance(error, RecordError) else RecordError(Reason.NOT_JSON, f"not valid JSON: {error}")


def _csv(stream: BinaryIO, delimiter: str = ",") -> Iterator[tuple[int, Any]]:
    csv.field_size_limit(sys.maxsize)  # a long answer is no mistake
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    names = text.readline()
    text.seek(0)
    if delimiter not in names:  # where a comma is the decimal mark, Excel writes CSV with semicolons
        delimiter = next((mark for mark in ";\t" if mark in names), delimiter)
    reader = csv.DictReader(text, delimiter=delimiter, strict=True)
    reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
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
