"""What reviewers said, one line each, in a file that only grows.

A line is on the disk before anybody is told that it is saved. A change is a new line that says who, why and of which
older line; the order of the lines decides, never a clock.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Annotated, Protocol

import msgspec
from msgspec import Meta

from tunegate.api.codec import prepare
from tunegate.api.errors import DataError, EvaluationError
from tunegate.files import disk_errors_as, locked

COMMENT = "comment"


class Joined(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="joined"):
    """Somebody took a name. code: the sha256 of what only that person's browsers know."""

    reviewer: str
    code: str
    time: datetime


class Mark(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="mark"):
    """What a reviewer said of an item, by one criterion or as a comment.

    id: chosen by who sends it, so that it may be sent again. item: the question's id. answers: the digest of what was
    shown. left: the place among the item's answers of the one shown first. replaces: the id of the older mark whose
    place this one takes, and reason: why.
    """

    id: Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{8,64}$")]
    item: str
    answers: str
    reviewer: str
    criterion: str
    value: int | str
    seconds: Annotated[float, Meta(ge=0)]
    time: datetime
    left: int = 0
    replaces: str = ""
    reason: str = ""


class Judgement(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="judgement"):
    """What a judge model replied about an item by one criterion, word for word; such lines have a file of their own.

    model: as its server calls it. asked: the digest of what it was asked. answers: the digest of the item. left: the
    place among the item's answers of the one shown first.
    """

    model: str
    asked: str
    answers: str
    criterion: str
    left: int
    reply: str
    time: datetime


Line = Joined | Mark | Judgement
Marks = dict[tuple[str, str, str], Mark]  # by digest of the answers, reviewer and criterion


class Log(Protocol):
    """Lines that only grow in number. `lines`: all there are."""

    lines: list[Line]

    def append(self, line: Line) -> None:
        """It is safe when this returns."""

    def close(self) -> None: ...


def latest(lines: Iterable[Line]) -> Marks:
    """What holds: of each reviewer's marks on the same, the last."""
    return {(line.answers, line.reviewer, line.criterion): line for line in lines if isinstance(line, Mark)}


def read(path: Path) -> tuple[list[Line], int]:
    """The lines of the file, and how many bytes they take: a last line that was cut off was never called saved.

    Raises DataError for any other line that can't be read, and does not guess at it.
    """
    lines: list[Line] = []
    if not path.is_file():
        return lines, 0
    *whole, _cut_off = (body := path.read_bytes()).split(b"\n")
    decoder: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)
    for number, text in enumerate(whole, start=1):
        try:
            lines.append(decoder.decode(text))
        except msgspec.DecodeError as error:
            raise DataError(
                f"{path}:{number} is not a mark ({error}); put the file back from a copy, or take the line out."
            ) from None
    return lines, len(body) - len(_cut_off)


class MarkFile:
    """The file, open to be written by this process alone."""

    def __init__(self, path: Path) -> None:
        """Raises EvaluationError when another process serves this review, or the file can't be used."""
        self._path, self._stack = path, ExitStack()
        busy = EvaluationError(f"{path.parent} is open in another `tunegate review`; use that one, or end it first.")
        try:
            with disk_errors_as(EvaluationError, path, "check the folder's permissions and free space."):
                self._stack.enter_context(locked(path.with_name(f"{path.name}.lock"), busy=busy))
                self.lines, self._size = read(path)
                self._file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
                self._stack.callback(os.close, self._file)
                os.ftruncate(self._file, self._size)
                folder = os.open(path.parent, os.O_RDONLY)
                self._stack.callback(os.close, folder)
                os.fsync(folder)  # the name of a new file is lost otherwise
        except BaseException:
            self.close()
            raise

    def append(self, line: Line) -> None:
        """Put a line on the disk; it is there when this returns. Raises EvaluationError, and keeps nothing then."""
        body = msgspec.json.encode(line) + b"\n"
        with disk_errors_as(
            EvaluationError, self._path, "nothing of this mark was kept; free space and send it again."
        ):
            try:
                rest, place = memoryview(body), self._size
                while rest:
                    written = os.pwrite(self._file, rest, place)
                    rest, place = rest[written:], place + written
                os.fdatasync(self._file)
            except OSError:
                os.ftruncate(self._file, self._size)
                raise
        self._size = place
        self.lines.append(line)

    def close(self) -> None:
        self._file = -1  # whoever still has this value must not write to what gets the number next
        self._stack.close()


prepare(Joined, Mark, Judgement)
