"""Dialogues from files, with an account of every row: what is used, and what is refused and why.

Reads dataset_info.json as LLaMA-Factory lays it out, with rows in its alpaca and sharegpt formats or as OpenAI
messages. Knows nothing of tokens, models or torch.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from tunegate.api.errors import DataError, UsageError
from tunegate.api.resource import Resource
from tunegate.models.templates import TURN_END, TURN_START

INFO = "dataset_info.json"
Message = dict[Literal["role", "content"], str]


class Columns(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which key of a row holds what. Where an entry names columns, those it leaves out are not read."""

    prompt: str | None = None
    query: str | None = None
    response: str | None = None
    history: str | None = None
    system: str | None = None
    messages: str | None = None


class Tags(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a message says who speaks and what is said."""

    role_tag: str = "from"
    content_tag: str = "value"
    user_tag: str = "human"
    assistant_tag: str = "gpt"
    system_tag: str = "system"


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One data set in dataset_info.json; `file_name` is a file, or a folder of files of one kind."""

    file_name: str
    formatting: Literal["alpaca", "sharegpt", "openai"] = "alpaca"
    columns: Columns | None = None
    tags: Tags | None = None


_COLUMNS = {
    "alpaca": Columns(prompt="instruction", query="input", response="output", history="history", system="system"),
    "sharegpt": Columns(messages="conversations", system="system"),
    "openai": Columns(messages="messages"),
}
_OPENAI_TAGS = Tags("role", "content", "user", "assistant", "system")


@dataclass(frozen=True)
class Row:
    """A usable dialogue: an optional system message, then user and assistant in turn. `line` counts from 1."""

    file: str
    line: int
    messages: tuple[Message, ...]


class Rejected(Resource, frozen=True, kw_only=True):
    file: str
    line: int
    reason: str


@dataclass(frozen=True)
class Corpus:
    """One data set as read: `digest` is the sha256 of its files' bytes."""

    name: str
    digest: str
    rows: tuple[Row, ...]
    rejected: tuple[Rejected, ...]


def load_corpora(folder: Path, names: Sequence[str], *, max_samples: int | None = None) -> tuple[Corpus, ...]:
    """Read the named data sets.

    Raises UsageError for an unknown name or an unreadable dataset_info.json, DataError for a file that can't be read.
    """
    entries = _load_info(folder)
    if unknown := [name for name in names if name not in entries]:
        raise UsageError(f"{folder / INFO} has no data set {unknown[0]!r}; it has: {', '.join(sorted(entries))}.")
    return tuple(_load_corpus(folder, name, _entry(folder, name, entries[name]), max_samples) for name in names)


def check_account(used: int, rejected: Sequence[Rejected], allowed: float) -> None:
    """Raise DataError when nothing is left to train on, or too large a share of the rows was rejected."""
    total = used + len(rejected)
    if total == 0:
        raise DataError("The data sets hold no rows; check the file_name entries in dataset_info.json.")
    first = f"the first is {rejected[0].file}:{rejected[0].line}: {rejected[0].reason}" if rejected else ""
    if used == 0:
        raise DataError(f"None of the {total} rows can be used; {first}.")
    if len(rejected) / total > allowed:
        raise DataError(
            f"{len(rejected)} of {total} rows were rejected, more than --max_rejected {allowed:g} allows; {first}."
        )


def write_rejected(path: Path, rejected: Sequence[Rejected]) -> None:
    """Write one JSON line for each rejected row."""
    path.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rejected))


def _load_info(folder: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode((folder / INFO).read_bytes(), type=dict[str, Any])
    except OSError as error:
        raise UsageError(
            f"{folder / INFO} can't be read: {error.strerror}; give --dataset_dir the folder that holds it."
        ) from None
    except msgspec.DecodeError as error:
        raise UsageError(f"{folder / INFO} is not a JSON object: {error}.") from None


def _entry(folder: Path, name: str, entry: Any) -> Entry:
    try:
        return msgspec.convert(entry, Entry)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"{folder / INFO}, data set {name!r}: {error}; an entry has file_name, formatting, columns and tags."
        ) from None


def _load_corpus(folder: Path, name: str, entry: Entry, max_samples: int | None) -> Corpus:
    paths = _files(folder / entry.file_name, name)
    columns = entry.columns or _COLUMNS[entry.formatting]
    tags = entry.tags or (_OPENAI_TAGS if entry.formatting == "openai" else Tags())
    convert = _alpaca if entry.formatting == "alpaca" else _dialogue
    rows: list[Row] = []
    rejected: list[Rejected] = []
    for path in paths:
        for line, record in _records(path):
            try:
                rows.append(Row(path.name, line, _checked(convert(_object(record), columns, tags))))
            except ValueError as error:
                rejected.append(Rejected(file=path.name, line=line, reason=str(error)))
    return Corpus(name, _digest(paths), tuple(rows[:max_samples]), tuple(rejected))


def _files(path: Path, name: str) -> list[Path]:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise DataError(f"The data set {name!r} names {path}, which is no file; correct its file_name in {INFO}.")
    if wrong := [file for file in files if file.suffix not in _READERS]:
        raise DataError(f"{wrong[0]} is not one of the kinds that can be read: {', '.join(_READERS)}.")
    return files


def _digest(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return f"sha256:{digest.hexdigest()}"


def _records(path: Path) -> Iterator[tuple[int, Any]]:
    """Each record with its line (its place in the list, for .json). An unreadable one comes as a ValueError."""
    try:
        yield from _READERS[path.suffix](path.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path} can't be read as {path.suffix[1:]}: {error}.") from None


def _json_lines(body: bytes) -> Iterator[tuple[int, Any]]:
    for line, text in enumerate(body.split(b"\n"), start=1):
        if text.strip():
            try:
                yield line, msgspec.json.decode(text)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                yield line, ValueError(f"not valid JSON: {error}")


def _json_list(body: bytes) -> Iterator[tuple[int, Any]]:
    yield from enumerate(msgspec.json.decode(body, type=list[Any]), start=1)


def _csv(body: bytes) -> Iterator[tuple[int, Any]]:
    reader = csv.DictReader(io.StringIO(body.decode("utf-8"), newline=""), strict=True)
    for record in reader:
        yield reader.line_num, record


_READERS: dict[str, Callable[[bytes], Iterator[tuple[int, Any]]]] = {
    ".json": _json_list,
    ".jsonl": _json_lines,
    ".csv": _csv,
}


def _object(record: Any) -> Mapping[str, Any]:
    if isinstance(record, ValueError):
        raise record
    if not isinstance(record, dict):
        raise ValueError("the row is not an object")  # noqa: TRY004
    return record


def _alpaca(record: Mapping[str, Any], columns: Columns, tags: Tags) -> Iterator[tuple[str, Any]]:
    """The turns of an alpaca row; an `input` goes on a new line below the `instruction`."""
    if system := _get(record, columns.system):
        yield "system", system
    for pair in _get(record, columns.history) or []:
        if not isinstance(pair, list) or len(pair) != 2:
            raise ValueError("a turn of the history is not a pair of question and answer")
        yield "user", pair[0]
        yield "assistant", pair[1]
    prompt, query = _get(record, columns.prompt), _get(record, columns.query)
    yield "user", f"{prompt}\n{query}" if query else prompt
    yield "assistant", _get(record, columns.response)


def _dialogue(record: Mapping[str, Any], columns: Columns, tags: Tags) -> Iterator[tuple[str, Any]]:
    """The turns of a sharegpt or OpenAI row."""
    if system := _get(record, columns.system):
        yield "system", system
    messages = _get(record, columns.messages)
    if not isinstance(messages, list):
        raise ValueError(f"it has no list of messages under {columns.messages!r}")  # noqa: TRY004
    roles = {tags.user_tag: "user", tags.assistant_tag: "assistant", tags.system_tag: "system"}
    for message in messages:
        if not isinstance(message, dict) or {tags.role_tag, tags.content_tag} - message.keys():
            raise ValueError(f"a message does not have {tags.role_tag!r} and {tags.content_tag!r}")
        if message[tags.role_tag] not in roles:
            raise ValueError(f"{message[tags.role_tag]!r} is none of the roles {', '.join(roles)}")
        yield roles[message[tags.role_tag]], message[tags.content_tag]


def _get(record: Mapping[str, Any], column: str | None) -> Any:
    return record.get(column) if column else None


def _checked(turns: Iterator[tuple[str, Any]]) -> tuple[Message, ...]:
    """The dialogue, or ValueError with what is wrong with it."""
    messages: list[Message] = []
    for role, content in turns:
        if not isinstance(content, str) or not (content.strip() or role == "system"):
            raise ValueError(f"a {role} turn has no text")
        if TURN_START in content or TURN_END in content:
            raise ValueError(f"a {role} turn holds {TURN_START} or {TURN_END}, which belong to the chat template")
        messages.append({"role": role, "content": content})
    speakers = [message["role"] for message in messages]
    if speakers[:1] == ["system"]:
        speakers = speakers[1:]
    if not speakers or len(speakers) % 2 or speakers != ["user", "assistant"] * (len(speakers) // 2):
        raise ValueError("user and assistant don't take turns, from a user's question to an assistant's answer")
    return tuple(messages)
