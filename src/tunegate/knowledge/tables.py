"""Tables and records as sections: one record, one chunk, with the names of its fields."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

from tunegate.api.errors import KnowledgeError
from tunegate.knowledge.documents import Document, Section

_NAMES = ("title", "name", "标题", "名称", "品名")
_DEEPEST = 32


def read_csv(text: str, source: str, stem: str) -> Document:
    """A row for each record, below the names in the first line; between them are commas, semicolons or tabs."""
    first = text.partition("\n")[0]
    rows = csv.reader(io.StringIO(text), delimiter=max(",;\t", key=first.count), strict=True)
    sections = []
    try:
        names = [name.strip() for name in next(rows, [])]
        for row in rows:
            if len(row) > len(names):
                raise KnowledgeError(
                    f"{source}, line {rows.line_num}: the row has {len(row)} cells and the first line {len(names)} "
                    "names; quote cells that hold a separator."
                )
            if section := _record(dict(zip(names, row, strict=False)), line=rows.line_num):
                sections.append(section)
    except csv.Error as error:
        raise KnowledgeError(f"{source}, line {rows.line_num}: {error}; correct the line.") from None
    return Document(source, stem, tuple(sections))


def read_json(text: str, source: str, stem: str) -> Document:
    """A record for each object of a list, wherever in the value it is; what is above it is its heading."""
    return Document(source, stem, tuple(_sections(_parsed(text, source), ())))


def read_jsonl(text: str, source: str, stem: str) -> Document:
    """A record for each line."""
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    records = [(number, _parsed(line, f"{source}, line {number}")) for number, line in lines]
    found = [section for number, value in records for section in _sections(value, (), number)]
    return Document(source, stem, tuple(found))


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise KnowledgeError(f"{where} is no JSON: {error}; correct it, or name it .txt.") from None


def _sections(value: Any, headings: tuple[str, ...], line: int | None = None) -> Iterator[Section]:
    """Objects in lists become records of their own; all else of an object is one."""
    if isinstance(value, list):
        plain = [item for item in value if not isinstance(item, dict | list)]
        if plain:
            yield Section("\n".join(map(_shown, plain)), headings, line=line)
        for item in value:
            if isinstance(item, dict | list):
                yield from _sections(item, headings, line)
        return
    if not isinstance(value, dict):
        yield Section(_shown(value), headings, line=line)
        return
    if section := _record(dict(_fields(value, "", _DEEPEST)), headings, line):
        yield section
    for name, inner in _lists(value, ""):
        yield from _sections(inner, (*headings, name), line)


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, dict | list) for item in value)


def _fields(value: dict[str, Any], above: str, depth: int) -> Iterator[tuple[str, str]]:
    """What an object says by itself: names with dots for objects within it, and lists of plain values in one line."""
    for name, inner in value.items():
        if isinstance(inner, dict) and depth:
            yield from _fields(inner, f"{above}{name}.", depth - 1)
        elif not _is_table(inner):
            yield f"{above}{name}", ", ".join(map(_shown, inner)) if isinstance(inner, list) else _shown(inner)


def _lists(value: dict[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    for name, inner in value.items():
        if _is_table(inner):
            yield f"{above}{name}", inner
        elif isinstance(inner, dict):
            yield from _lists(inner, f"{above}{name}.")


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _record(fields: dict[str, str], headings: tuple[str, ...] = (), line: int | None = None) -> Section | None:
    """A line for each field that says something; the first stands above each chunk, and a name is a heading."""
    lines = [f"{name}: {text.strip()}" for name, text in fields.items() if text.strip() and text != "null"]
    if not lines:
        return None
    named = next((text.strip() for name, text in fields.items() if name.casefold() in _NAMES and text.strip()), "")
    named = " ".join(named.split())
    above = (*headings, named) if 0 < len(named) <= 120 else headings
    head, *rest = lines
    return Section("\n".join(rest), above, head, line) if rest else Section(head, above, line=line)
