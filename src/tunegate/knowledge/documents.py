"""What readers make of files, and chunks of that: plain frozen values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tunegate.api.codec import Resource

Progress = Callable[[str, int, int], None]
"""Called with the name of a step, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class Section:
    """A stretch of a document under one path of headings.

    head: what each of its chunks repeats, such as the head of a table, whose rows are then the lines of `text`.
    line, page: where it begins, counted from 1, as far as its format knows that.
    """

    text: str
    headings: tuple[str, ...] = ()
    head: str = ""
    line: int | None = None
    page: int | None = None


@dataclass(frozen=True)
class Document:
    """One file as text. source: its path below what was given to read. notes: what could not be read of it."""

    source: str
    title: str
    sections: tuple[Section, ...]
    notes: tuple[str, ...] = ()


class Chunk(Resource, frozen=True, kw_only=True, omit_defaults=True):
    """What is found and cited: some sentences, rows or a record, and where they come from."""

    source: str
    title: str
    headings: tuple[str, ...] = ()
    text: str
    line: int | None = None
    page: int | None = None

    @property
    def path(self) -> str:
        """Title and headings, in one line."""
        return " > ".join(dict.fromkeys((self.title, *self.headings)))

    @property
    def whole(self) -> str:
        """The text below its path: what is searched, and what a model is given."""
        return f"{self.path}\n{self.text}"
