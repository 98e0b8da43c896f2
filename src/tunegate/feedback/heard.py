"""What the log holds of single answers, whichever server heard it: asked for answers that a server knows nothing of.

Of a segment only hashes of its answers are kept, 8 bytes for each vote, and those of a million votes are 8 MB.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import msgspec

from tunegate.api.feedback import FeedbackRecord
from tunegate.feedback.segments import Documents, Entry, read_lines

_RECORDS = msgspec.json.Decoder(FeedbackRecord)
_READERS = 8
_MOST_SEGMENTS = 2000


class Heard:
    """Finds votes by their answer. Not for several threads at a time."""

    def __init__(self, store: Documents) -> None:
        self._store = store
        self._answers: OrderedDict[str, tuple[str, array[int]]] = OrderedDict()  # by key: the etag, sorted hashes

    def votes(self, folder: str, marks: Collection[str]) -> dict[str, list[FeedbackRecord]]:
        """The votes below `folder`, which ends in '/', on answers with these marks, in the order they were received.

        Raises StoreError. A line that can't be read is no vote.
        """
        entries, found = self._store.entries(folder), dict[str, list[FeedbackRecord]]()
        unread = [entry for entry in entries if self._answers.get(entry.key, ("",))[0] != entry.etag]
        with ThreadPoolExecutor(_READERS) as readers:
            for entry, answers in zip(unread, readers.map(self._read, unread), strict=True):
                self._answers[entry.key] = (entry.etag, answers)
        wanted = {hash(mark) for mark in marks}
        for entry in entries:
            if any(_holds(self._answers[entry.key][1], each) for each in wanted):
                for record in self._records(entry):
                    if (mark := mark_of(record.feedback.response_id)) in marks:
                        found.setdefault(mark, []).append(record)
        while len(self._answers) > _MOST_SEGMENTS:
            self._answers.popitem(last=False)
        return {mark: sorted(records, key=lambda record: record.received) for mark, records in found.items()}

    def _read(self, entry: Entry) -> array[int]:
        return array("q", sorted(hash(mark_of(record.feedback.response_id)) for record in self._records(entry)))

    def _records(self, entry: Entry) -> list[FeedbackRecord]:
        lines, _ = read_lines(self._store.get(entry.key) or b"")
        found = []
        for line in lines:
            with suppress(msgspec.DecodeError):
                found.append(_RECORDS.decode(line))
        return found


def mark_of(response_id: str) -> str:
    """What tells an id from others: its signature, at its end."""
    return response_id[-21:]


def _holds(sorted_values: array[int], value: int) -> bool:
    at = bisect_left(sorted_values, value)
    return at < len(sorted_values) and sorted_values[at] == value
