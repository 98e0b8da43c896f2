"""Where a review is kept: a folder of this machine, or a folder of a bucket, for pods that may be killed."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Literal, Protocol

from tunegate.api.codec import from_json, to_json
from tunegate.api.errors import EvaluationError, UsageError
from tunegate.files import disk_errors_as, replace_file
from tunegate.review.items import Review
from tunegate.review.marks import Line, Log, MarkFile, read
from tunegate.review.stored_marks import StoredMarks, read_stored
from tunegate.store import Store

REVIEW = "review.json"
Kind = Literal["marks", "judge"]
"""What people said, and what a judge model replied; nobody reads one for the other."""


class Place(Protocol):
    """One review and its lines. `files`: the folder of this machine for what is made of it."""

    files: Path

    def review(self) -> Review:
        """Raises UsageError where none was made."""

    def keep(self, review: Review) -> None:
        """In place of an older one. Raises EvaluationError or StoreError."""

    def lines(self, kind: Kind) -> list[Line]: ...

    def open(self, kind: Kind) -> Log:
        """To be written."""


def open_place(name: str, endpoint_url: str | None) -> Place:
    """The folder, or where it says so the one in a bucket: s3://BUCKET/PREFIX."""
    if name.startswith(("s3://", "oss://")):
        return _Bucket(name, endpoint_url)
    return _Folder(Path(name))


class _Folder:
    def __init__(self, folder: Path) -> None:
        self.files = folder

    def __str__(self) -> str:
        return str(self.files)

    def review(self) -> Review:
        path = self.files / REVIEW
        return _read(path.read_bytes() if path.is_file() else None, str(self))

    def keep(self, review: Review) -> None:
        with disk_errors_as(EvaluationError, self.files, "name another folder."):
            replace_file(self.files / REVIEW, to_json(review))

    def lines(self, kind: Kind) -> list[Line]:
        return read(self.files / f"{kind}.jsonl")[0]

    def open(self, kind: Kind) -> Log:
        return MarkFile(self.files / f"{kind}.jsonl")


class _Bucket:
    files = Path()

    def __init__(self, uri: str, endpoint_url: str | None) -> None:
        self._store = Store.open(uri, endpoint_url=endpoint_url)

    def __str__(self) -> str:
        return self._store.uri

    def review(self) -> Review:
        return _read(self._store.get(REVIEW), str(self))

    def keep(self, review: Review) -> None:
        self._store.put(REVIEW, to_json(review))

    def lines(self, kind: Kind) -> list[Line]:
        return read_stored(self._store, kind)

    def open(self, kind: Kind) -> Log:
        return StoredMarks(self._store, kind)


def _read(body: bytes | None, place: str) -> Review:
    if body is None:
        made = f"tunegate review create {quote(place)} VERSION... --suite SUITE"
        raise UsageError(f"There is no review in {place}; make one with: {made}")
    return from_json(body, Review, f"{place}/{REVIEW}")
