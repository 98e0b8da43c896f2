"""Documents in pieces that an embedder and a prompt can hold: whole sentences, rows and records."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from semantic_text_splitter import TextSplitter

from tunegate.knowledge.documents import Chunk, Document, Section
from tunegate.knowledge.words import CJK

SIZE = 300
"""How large a chunk is at most, as `size` counts; some 400 tokens, of which embedders take 512."""
_WIDE = re.compile(f"[{CJK}\u3000-\u303f\uff00-\uffef]")


def size(text: str) -> int:
    """About the tokens of a text: one for a Chinese character or four others."""
    wide = len(_WIDE.findall(text))
    return wide + (len(text) - wide + 3) // 4


def chunks(document: Document, most: int = SIZE) -> list[Chunk]:
    """The chunks of a document, in its order. Each has at most `most` of `size`, its path not counted."""
    return [
        Chunk(
            source=document.source,
            title=document.title,
            headings=section.headings,
            text=text,
            line=section.line,
            page=section.page,
        )
        for section in document.sections
        for text in _parts(section, most)
    ]


def _parts(section: Section, most: int) -> Iterator[str]:
    """The section's text in parts, with its head above each; a head that would fill half of them stands once."""
    if not section.head:
        yield from _splitter(most).chunks(section.text)
        return
    head, rows = section.head, section.text.splitlines()
    if size(head) > most // 2:
        head, rows = "", [*head.splitlines(), *rows]
    room = most - size(head) - bool(head)
    for rows_of_one in _packed(rows, room):
        yield f"{head}\n{rows_of_one}".strip()


def _packed(rows: list[str], room: int) -> Iterator[str]:
    """As many rows together as fit; one that is too long by itself is split as text."""
    held = ""
    for row in rows:
        longer = f"{held}\n{row}" if held else row
        if size(longer) <= room:
            held = longer
            continue
        if held:
            yield held
        *full, held = _splitter(room).chunks(row) or [""]
        yield from full
    if held:
        yield held


@cache
def _splitter(most: int) -> TextSplitter:
    return TextSplitter.from_callback(size, most)
