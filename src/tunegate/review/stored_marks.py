"""Lines of a review in a bucket: an object each, numbered, which no other takes the place of.

Whoever serves the review may be killed at any moment, and another may serve it at once: of two that write the same
number the store refuses one, which then reads what the other wrote.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec

from tunegate.api.errors import DataError, EvaluationError
from tunegate.review.marks import Line
from tunegate.store import Store

_READERS = 16


def read_stored(store: Store, folder: str) -> list[Line]:
    """The lines in their order. Raises DataError for one that can't be read, and does not guess at it."""
    return _read(store, sorted(store.keys(f"{folder}/")))


class StoredMarks:
    """As `MarkFile`, in a bucket."""

    def __init__(self, store: Store, folder: str) -> None:
        self._store, self._folder = store, folder
        self._keys = sorted(store.keys(f"{folder}/"))
        self.lines = _read(store, self._keys)

    def append(self, line: Line) -> None:
        """Put a line into the store; it is there when this returns. Raises StoreError, or EvaluationError where another
        server wrote meanwhile: its lines are among `lines` then."""
        last = int(self._keys[-1].partition("/")[2].partition(".")[0]) if self._keys else 0
        key = f"{self._folder}/{last + 1:08}.json"
        if not self._store.put_new(key, msgspec.json.encode(line)):
            news = sorted(set(self._store.keys(f"{self._folder}/")) - set(self._keys))
            self.lines += _read(self._store, news)
            self._keys += news
            raise EvaluationError("Another server wrote to this review meanwhile, which was read; send this again.")
        self._keys.append(key)
        self.lines.append(line)

    def close(self) -> None:
        """Nothing is open."""


def _read(store: Store, keys: Sequence[str]) -> list[Line]:
    with ThreadPoolExecutor(_READERS) as pool:
        bodies = list(pool.map(store.get, keys))
    lines, decoder = list[Line](), msgspec.json.Decoder[Line](Line)
    for key, body in zip(keys, bodies, strict=True):
        try:
            lines.append(decoder.decode(body or b""))
        except msgspec.DecodeError as error:
            raise DataError(
                f"{store.uri}/{key} is not a mark ({error}); put the object back from a copy, or delete it."
            ) from None
    return lines
