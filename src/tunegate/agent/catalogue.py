"""A table of products, looked up: rows with the very ids that are asked for first, then those that share words.

Any CSV, TSV, JSON or JSONL table is one, of some 10,000 rows (more belong in an index); each row is a source.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from tunegate.agent.tools import Language, Source, Tool
from tunegate.api.errors import ToolError, UsageError
from tunegate.knowledge.documents import Document
from tunegate.knowledge.tables import read_csv, read_json, read_jsonl
from tunegate.knowledge.words import literal_ids, words

READERS = {".csv": read_csv, ".tsv": read_csv, ".json": read_json, ".jsonl": read_jsonl}
STEM = "catalogue"
_MOST = 5
_SPREAD, _FEW = 0.05, 5
"""The share of the rows that may hold an id, and how many may in any case; what more hold singles nothing out."""
_NEARLY = 0.5
"""How much of the best row's weight another one must have, to be shown beside it."""
_SENTENCES: dict[Language, tuple[str, str]] = {
    "en": ("Nothing in the catalogue has {0}.", "Nothing in the catalogue fits."),
    "zh": ("目录中没有{0}。", "目录中没有符合的商品。"),
}


class Catalogue:
    """The rows of a table, by their ids and words. Safe to share between threads."""

    def __init__(self, document: Document) -> None:
        """Raises UsageError for a table without rows."""
        self.rows = tuple(
            Source(
                " > ".join(section.headings) or f"{document.title}, {section.line or number}",
                f"{section.head}\n{section.text}".strip(),
                document.source,
                section.line,
            )
            for number, section in enumerate(document.sections, 1)
        )
        if not self.rows:
            raise UsageError(f"{document.source} has no rows, so nothing can be looked up; fill it, or name another.")
        self._ids = _holders(literal_ids(row.text) for row in self.rows)
        # What ids look like in the first column: 2-year or 1.7l is none of its kind, and no product that is missing.
        self._forms = {_form(id) for row in self.rows for id in literal_ids(row.text.partition("\n")[0])}
        self._words = _holders(set(words(row.text)) for row in self.rows)

    def look_up(self, query: str) -> tuple[Source, ...]:
        """At most five rows, those with the most of the ids that are asked for first. score: 1 for an id, else less."""
        weights: defaultdict[int, float] = defaultdict(float)
        for word in set(words(query)):
            holders = self._words.get(word, [])
            for row in holders:
                weights[row] += math.log(1 + len(self.rows) / len(holders))
        most = max(_FEW, len(self.rows) * _SPREAD)
        holders_of_ids = [self._ids.get(id, []) for id in literal_ids(query)]
        named = Counter(row for holders in holders_of_ids if len(holders) <= most for row in holders)
        best = max(weights.values(), default=1.0)
        if named:
            order = sorted(named, key=lambda row: (-named[row], -weights[row], row))
        else:
            order = sorted(
                (row for row in weights if weights[row] >= _NEARLY * best), key=lambda row: (-weights[row], row)
            )
        return tuple(_scored(self.rows[row], 1.0 if named else weights[row] / (1 + best)) for row in order[:_MOST])

    def lacks(self, query: str) -> list[str]:
        """The ids in a query that no row has, of the form that ids have in the first column."""
        return sorted(id.upper() for id in literal_ids(query) if id not in self._ids and _form(id) in self._forms)


def load(path: Path) -> Catalogue:
    """Read a table by its suffix. Raises UsageError for a file that is none, KnowledgeError for a broken one."""
    read = READERS.get(path.suffix.lower())
    if read is None or not path.is_file():
        raise UsageError(f"{path.name} is no table that is there ({', '.join(READERS)}); name one.")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path.name} can't be read ({error}); save it as UTF-8.") from None
    return Catalogue(read(text, path.name, path.stem))


def in_folder(folder: Path) -> Path | None:
    """The catalogue that lies in a folder, such as a release's prompts; None where there is none."""
    return next((path for suffix in READERS if (path := folder / f"{STEM}{suffix}").is_file()), None)


def tool(catalogue: Catalogue, language: Language) -> Tool:
    """Looks products up in a catalogue."""
    has_no, nothing = _SENTENCES[language]

    async def call(query: str) -> str | tuple[Source, ...]:
        if not query.strip():
            raise ToolError("The catalogue is asked for nothing; write a product's number or name.")
        rows = await asyncio.to_thread(catalogue.look_up, query)
        missing = ", ".join(catalogue.lacks(query))
        if not missing:
            return rows or nothing
        named = [row for row in rows if row.score == 1.0]
        return (*named, Source(has_no.format(missing), "")) if named else has_no.format(missing)

    return Tool(
        ("Catalogue", "商品目录"),
        ("finds products by their number or name", "按货号或名称查找商品"),
        call,
        key="catalogue",
        takes=("query", "a product's number or name", "货号或商品名称"),
    )


def _form(id: str) -> str:
    """`a9` for SO-103 and for KYL-100: runs of letters and of digits."""
    return re.sub(r"\d+", "9", re.sub(r"[^\W\d_]+", "a", id))


def _scored(row: Source, score: float) -> Source:
    return Source(row.title, row.text, row.uri, row.line, score=round(score, 4))


def _holders(rows: Iterable[Iterable[str]]) -> dict[str, list[int]]:
    """The positions of the rows that hold each word."""
    holders: defaultdict[str, list[int]] = defaultdict(list)
    for position, held in enumerate(rows):
        for word in held:
            holders[word].append(position)
    return dict(holders)
