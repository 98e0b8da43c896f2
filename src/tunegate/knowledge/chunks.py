"""Documents in pieces that an embedder and a prompt can hold: whole sentences, rows and records."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from semantic_text_splitter import TextSplitter

from tunegate.knowledge.documents import Chunk, Document
from tunegate.knowledge.words import size

SIZE = 300
"""How large a chunk is at most, as `size` counts; some 400 tokens, of which embedders take 512."""


def chunks(document: Document, most: int = SIZE) -> list[Chunk]:
    """The chunks of a document, in its order. Each has at most `most` of `size`, its path not counted."""
    return [
        Chunk(
            source=document.source,
            title=_encodable(document.title),
            headings=tuple(map(_encodable, section.headings)),
            text=text,
            line=section.line,
            page=section.page,
        )
        for section in document.sections
        for text in _parts(_encodable(section.text), _encodable(section.head), most)
    ]


def _encodable(text: str) -> str:
    """The text without halves of characters, which JSON and PDF files may hold and UTF-8 can't."""
    return text.encode("utf-8", "replace").decode()


def _parts(text: str, head: str, most: int) -> Iterator[str]:
    """A section's text in parts, with its head above each; one that would fill half of them stands once."""
    if not head:
        yield from _splitter(most).chunks(text)
        return
    rows = text.splitlines()
    if not rows or size(head) > most // 2:
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
