"""The feedback log: one immutable document in the store for each judged answer.

The key of a document follows from the response id alone and is written only if nothing is there, so an answer is
judged once whichever replica hears of it. Nothing here knows how ids are signed or who sends feedback.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Protocol

import msgspec

from tunegate.api.errors import FeedbackError, StoreError
from tunegate.api.feedback import Feedback, FeedbackRecord, Tally, Verdict
from tunegate.api.resource import to_json

FOLDER = ".tunegate/feedback"
_READERS = 8


class Documents(Protocol):
    """What the log needs of the store."""

    def put_new(self, key: str, body: bytes) -> bool: ...
    def get(self, key: str) -> bytes | None: ...
    def keys(self, prefix: str) -> list[str]: ...


class FeedbackLog:
    """Records and counts the feedback of all versions in a store."""

    def __init__(self, store: Documents) -> None:
        self._store = store
        self._read: dict[str, dict[str, tuple[datetime, Verdict]]] = {}

    def record(self, record: FeedbackRecord) -> bool:
        """Keep `record` durably; False when its answer was judged before. The caller has checked the response id.

        Raises StoreError when the store can't be reached: then nothing was kept and it may be tried again.
        """
        kept = msgspec.structs.replace(record, feedback=without_controls(record.feedback))
        return self._store.put_new(f"{_prefix(record.digest)}{record.feedback.response_id}.json", to_json(kept))

    def list(self, digest: str) -> list[FeedbackRecord]:
        """All feedback on the version with `digest`, oldest first."""
        return sorted(self._fetch(self._store.keys(_prefix(digest))), key=lambda record: record.received)

    def tally(self, digest: str, since: datetime | None = None) -> Tally:
        """Count the verdicts on answers given at or after `since`. Documents read once are not read again."""
        read = self._read.setdefault(digest, {})
        new = [key for key in self._store.keys(_prefix(digest)) if key not in read]
        read.update(zip(new, ((r.answered, r.feedback.verdict) for r in self._fetch(new)), strict=True))
        verdicts = [verdict for answered, verdict in read.values() if since is None or answered >= since]
        return Tally(up=verdicts.count("up"), down=verdicts.count("down"))

    def _fetch(self, keys: Iterable[str]) -> Iterable[FeedbackRecord]:
        with ThreadPoolExecutor(_READERS) as pool:
            return list(pool.map(self._get, keys))

    def _get(self, key: str) -> FeedbackRecord:
        body = self._store.get(key)
        try:
            return msgspec.json.decode(body or b"", type=FeedbackRecord)
        except msgspec.DecodeError as error:
            raise StoreError(f"{key} in the store is not feedback: {error}. Delete it to go on.") from None


def without_controls(feedback: Feedback) -> Feedback:
    """The same feedback without control characters in what people wrote; line breaks and tabs stay in its prose."""
    return msgspec.structs.replace(
        feedback,
        tags=tuple(_strip(tag, keep="") for tag in feedback.tags),
        comment=feedback.comment and _strip(feedback.comment),
        correction=feedback.correction and _strip(feedback.correction),
    )


def _strip(text: str, keep: str = "\n\t") -> str:
    return "".join(c for c in text if c in keep or unicodedata.category(c) != "Cc")


def _prefix(digest: str) -> str:
    hexadecimal = digest.removeprefix("sha256:")
    if not re.fullmatch("[0-9a-f]{64}", hexadecimal):
        raise FeedbackError(f"{digest!r} is not the full digest of a version; find it with: tunegate models list.")
    return f"{FOLDER}/{hexadecimal}/"
