"""Answers kept on this machine's disk as they come, so that an evaluation that was killed goes on where it was.

Each batch of answers is one write, on the disk before the next batch is asked. A line says which question it answers by
the digest of what was asked: lines of other questions, and one that was cut off, are left out.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tunegate.api.codec import to_json_lines
from tunegate.api.errors import EvaluationError
from tunegate.files import disk_errors_as


class Line(msgspec.Struct, frozen=True):
    """One answered question; `answer` is None where the model's numbers were not finite."""

    question: str
    answer: str | None


class Sheet:
    """The answers to one list of questions."""

    def __init__(
        self,
        questions: Sequence[Any],
        known: Mapping[str, str | None],
        keep: Callable[[list[Line]], None],
        is_ours: Callable[[], bool] | None = None,
    ) -> None:
        """`is_ours` is asked once for each batch, in their order, where other processes have some of them."""
        self._questions = [_digest(question) for question in questions]
        self._known, self._keep, self._is_ours = dict(known), keep, is_ours

    def lacks(self, batch: Iterable[int]) -> bool:
        """Whether to ask this batch: one of its questions has no answer yet, and the batch is no other process's."""
        if self._is_ours and not self._is_ours():
            return False
        return any(self._questions[place] not in self._known for place in batch)

    @property
    def answered(self) -> int:
        """How many questions have an answer."""
        return sum(question in self._known for question in self._questions)

    def put(self, answers: Mapping[int, str | None]) -> None:
        """Keep the answers of a batch, by the places of their questions."""
        lines = [Line(self._questions[place], answer) for place, answer in answers.items()]
        self._keep(lines)
        self._known |= {line.question: line.answer for line in lines}

    def answers(self) -> list[str | None]:
        """All of them, in the order of the questions; None also for those that are another process's to ask."""
        if self._is_ours:
            return [self._known.get(question) for question in self._questions]
        return [self._known[question] for question in self._questions]


class Sheets:
    """The sheets of one evaluation, in one file; `done` gets how many more questions are answered."""

    def __init__(
        self,
        path: Path | None,
        done: Callable[[int], None],
        *,
        known: Iterable[Line] = (),
        kept: Callable[[list[Line]], None] = lambda lines: None,
        is_ours: Callable[[], bool] | None = None,
    ) -> None:
        """`path` None keeps nothing. Raises EvaluationError when the file can't be used.

        known: answers that are there besides those in the file. kept: gets the answers of each batch.
        is_ours: as a Sheet has it.
        """
        self._path, self._done, self._kept, self._is_ours = path, done, kept, is_ours
        self._known: dict[str, str | None] = {line.question: line.answer for line in known}
        self._start = b""  # ends a line that was cut off
        if path and path.is_file():
            decoder = msgspec.json.Decoder(Line)
            *lines, cut_off = path.read_bytes().split(b"\n")
            self._start = b"\n" if cut_off else b""
            for text in lines:
                try:
                    line = decoder.decode(text)
                except msgspec.DecodeError:
                    continue
                self._known[line.question] = line.answer

    def sheet(self, *asked: Any, questions: Sequence[Any]) -> Sheet:
        """A sheet for these questions; `asked` is what else they were asked with."""
        sheet = Sheet([(*asked, question) for question in questions], self._known, self._keep, self._is_ours)
        if sheet.answered:
            self._done(sheet.answered)
        return sheet

    def close(self) -> None:
        """The answers are kept elsewhere: remove the file."""
        if self._path:
            self._path.unlink(missing_ok=True)

    def _keep(self, lines: list[Line]) -> None:
        if self._path:
            remedy = "free space or name another TUNEGATE_CACHE."
            with disk_errors_as(EvaluationError, self._path, remedy):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                body = self._start + to_json_lines(lines)
                descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
                try:
                    os.write(descriptor, body)
                    os.fdatasync(descriptor)
                    self._start = b""
                finally:
                    os.close(descriptor)
        self._kept(lines)
        self._done(len(lines))


def _digest(question: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(question)).hexdigest()[:32]
