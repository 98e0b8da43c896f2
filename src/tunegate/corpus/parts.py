"""The parts of a large corpus, each written by a process of its own and kept in its folder until all are there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tunegate.api.codec import Document, from_json, to_json
from tunegate.api.errors import UsageError
from tunegate.corpus.build import Builder, Corpus
from tunegate.store.folders import Folder


class Part(Document, frozen=True, kw_only=True):
    """What a teacher wrote of one part. made_of: the digest of what it was asked about."""

    schema: Literal["tunegate.io/corpus-part/v1"] = "tunegate.io/corpus-part/v1"
    made_of: str
    teacher: str
    corpus: Corpus


@dataclass(frozen=True)
class Parts:
    """Those of one corpus in its folder; parts of an earlier plan, of other seeds or of another teacher don't count."""

    name: str
    folder: Folder
    builder: Builder

    def build(self, write: Callable[[int], Corpus] | None, part: int | None) -> tuple[Corpus, str] | None:
        """The corpus and its teacher; None while parts are missing that other processes write.

        write: asks the teacher for a part; without it, the parts that are there are merged. part: write it alone.
        """
        if write and part is not None:
            self.keep(part, write(part))
            return None if self.missing() else self.merged()
        if write:
            parts = [write(number) for number in range(self.builder.plan.parts)]
            return self.builder.merge(parts), self.builder.teacher
        return self.merged() if self.builder.plan.count else (self.builder.merge([]), "")

    def get(self, number: int) -> Part | None:
        """Raises UsageError or StoreError for one that can't be read."""
        body = self.folder.get(_key(number))
        part = from_json(body, Part, f"{self.name}/{_key(number)}") if body else None
        if part is None or part.made_of != str(self.builder.made_of):
            return None
        return part if self.builder.teacher in ("", part.teacher) else None

    def keep(self, number: int, corpus: Corpus) -> None:
        """Whole or not at all. Raises UsageError or StoreError."""
        part = Part(made_of=str(self.builder.made_of), teacher=self.builder.teacher, corpus=corpus)
        self.folder.put(_key(number), to_json(part))

    def missing(self) -> bool:
        return any(self.get(number) is None for number in range(self.builder.plan.parts))

    def merged(self) -> tuple[Corpus, str]:
        """The corpus of all parts, and the teacher. Raises UsageError that names the parts that are not there."""
        found = [self.get(number) for number in range(self.builder.plan.parts)]
        parts = [part for part in found if part]
        if len(parts) < len(found):
            missing = ", ".join(str(number) for number, part in enumerate(found) if not part)
            raise UsageError(
                f"{self.name} lacks parts of this plan, of {len(found)}: {missing}; write each with: "
                f"tunegate corpus build PLAN {self.name} --url URL --part NUMBER"
            )
        teachers = sorted({part.teacher for part in parts})
        if len(teachers) > 1:
            raise UsageError(
                f"The parts in {self.name} are of different teachers ({', '.join(teachers)}); name one with --url and "
                "--model, which then writes the others' again."
            )
        return self.builder.merge([part.corpus for part in parts]), teachers[0]


def _key(number: int) -> str:
    return f"parts/{number:06}.json"
