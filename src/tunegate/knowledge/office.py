"""PDF and Word documents as sections. pypdf and python-docx are an extra of their own."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

import docx
import pypdf
from docx.table import Table
from docx.text.paragraph import Paragraph
from pypdf.errors import PyPdfError

from tunegate.api.errors import KnowledgeError
from tunegate.knowledge.documents import Document, Section
from tunegate.knowledge.words import CJK

_ENDS = "。！？.!?：:；;"


def read_pdf(body: bytes, source: str, stem: str) -> Document:
    """A section for each page that has text.

    Raises KnowledgeError where none has (a scan), or the file can't be read without a password or at all.
    """
    try:
        reader = pypdf.PdfReader(io.BytesIO(body))
        if reader.is_encrypted and not reader.decrypt(""):
            raise KnowledgeError(f"{source} asks for a password; save it without one.")
        pages = [_flowing(page.extract_text()) for page in reader.pages]
        named = reader.metadata.title if reader.metadata else ""
    except (PyPdfError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise KnowledgeError(f"{source} is no PDF that can be read ({error}); save it again as PDF.") from None
    empty = [str(number) for number, text in enumerate(pages, 1) if not text]
    if len(empty) == len(pages):
        raise KnowledgeError(
            f"{source} is a scan: none of its {len(pages)} pages holds text; recognize it first, for example with: "
            "ocrmypdf SCAN.pdf TEXT.pdf."
        )
    notes = (f"{source}: no text on page {', '.join(empty)}",) if empty else ()
    sections = tuple(Section(text, page=number) for number, text in enumerate(pages, 1) if text)
    return Document(source, " ".join(str(named or stem).split())[:120], sections, notes)


def _flowing(text: str) -> str:
    """A page's lines as paragraphs: a line that ends no sentence continues in the next one."""
    flowing = ""
    for line in filter(None, map(str.strip, text.replace("\0", "").splitlines())):
        if not flowing or flowing[-1] in _ENDS:
            flowing += f"\n{line}"
        else:
            flowing += line if re.match(rf"[{CJK}]", line) and re.search(rf"[{CJK}，、]$", flowing) else f" {line}"
    return flowing.strip()


def read_docx(body: bytes, source: str, stem: str) -> Document:
    """Paragraphs below their headings, and tables with their first rows. Raises KnowledgeError for another file."""
    try:
        file = docx.Document(io.BytesIO(body))
        sections = tuple(_word_sections(file.iter_inner_content()))
        named = file.core_properties.title
    except Exception as error:  # python-docx passes on whatever zipfile, lxml and its own parts raise
        raise KnowledgeError(f"{source} is no Word document that can be read ({error}); save it as .docx.") from None
    return Document(source, " ".join((named or stem).split())[:120], sections)


def _word_sections(content: Iterator[Paragraph | Table]) -> Iterator[Section]:
    open_: list[tuple[int, str]] = []
    held: list[str] = []

    def headings() -> tuple[str, ...]:
        return tuple(text for _, text in open_)

    for item in content:
        style = item.style.name or "" if isinstance(item, Paragraph) and item.style else ""
        heading = re.fullmatch(r"Heading (\d)|Title", style)
        if isinstance(item, Paragraph) and not heading:
            held += [item.text.strip()] if item.text.strip() else []
            continue
        if held:
            yield Section("\n".join(held), headings())
            held = []
        if isinstance(item, Paragraph):
            assert heading is not None
            level, text = int(heading[1] or 0), " ".join(item.text.split())
            open_ = [*(outer for outer in open_ if outer[0] < level), *([(level, text)] if text else [])]
        else:
            head, *rows = [" | ".join(" ".join(cell.text.split()) for cell in row.cells) for row in item.rows] or [""]
            yield Section("\n".join(rows), headings(), head)
    if held:
        yield Section("\n".join(held), headings())
