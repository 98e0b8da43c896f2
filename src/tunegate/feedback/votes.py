"""The feedback log: one immutable document in the store for each judged answer.

The key of a document follows from the response id alone and is written only if nothing is there, so an answer is
judged once whichever replica hears of it. All verdicts are kept; of one user's on one version the first few count.
Nothing here knows how ids are signed or who sends feedback.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Protocol

import msgspec

from tunegate.api.codec import from_json, to_json
from tunegate.api.digest import Digest
from tunegate.api.errors import StoreError, UsageError
from tunegate.api.feedback import Feedback, FeedbackRecord, Tally, Verdicts, promotion_tag
from tunegate.feedback.tally import VERDICTS_PER_USER, Vote, count_votes

FOLDER = ".tunegate/feedback"
_ANONYMOUS = "anonymous"
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
        self._read: dict[str, dict[str, Vote]] = {}

    def record(self, record: FeedbackRecord, user: str | None = None) -> bool:
        """Keep `record` durably; False when its answer was judged before. The caller has checked the response id.

        `user` is the tag in that id. Raises StoreError when the store can't be reached: then nothing was kept and it
        may be tried again.
        """
        kept = msgspec.structs.replace(record, feedback=without_controls(record.feedback))
        return self._store.put_new(f"{_folder(record.digest, user)}{record.feedback.response_id}.json", to_json(kept))

    def counts(self, digest: str, user: str | None) -> bool:
        """Whether the verdict of `user` that was just recorded is among the first few. When several of one user
        arrive at once, fewer may count, never more."""
        return user is None or len(self._store.keys(_folder(digest, user))) <= VERDICTS_PER_USER

    def list(self, digest: str) -> list[FeedbackRecord]:
        """All feedback on the version with `digest`, oldest first."""
        return sorted(self._fetch(self._store.keys(_prefix(digest))), key=lambda record: record.received)

    def tally(self, digest: str, since: datetime | None = None) -> Tally:
        """Count the verdicts on answers given at or after `since`: of each user the first few that were received."""
        counts = count_votes(vote for vote in self._votes(digest) if since is None or vote.answered >= since)
        return Tally(up=sum(tally.up for tally in counts.values()), down=sum(tally.down for tally in counts.values()))

    def tallies(self, digest: str, promotion: str, since: datetime) -> Verdicts:
        """The same for each step of the promotion of this name, and, as step None, for answers given since `since`
        without a step."""
        tag = promotion_tag(promotion)
        counts = count_votes(
            vote
            for vote in self._votes(digest)
            if (vote.step.startswith(f"{tag}/") if vote.step else vote.answered >= since)
        )
        return {None if step is None else int(step.partition("/")[2]): tally for step, tally in counts.items()}

    def _votes(self, digest: str) -> Iterable[Vote]:
        """All votes on a version. Documents read once are not read again."""
        read = self._read.setdefault(digest, {})
        new = [key for key in self._store.keys(_prefix(digest)) if key not in read]
        for key, record in zip(new, self._fetch(new), strict=True):
            user = key.removeprefix(_prefix(digest)).partition("/")[0]
            named = None if user == _ANONYMOUS else user
            read[key] = Vote(named, record.answered, record.received, record.feedback.verdict, record.step)
        return read.values()

    def _fetch(self, keys: Iterable[str]) -> Iterable[FeedbackRecord]:
        def get(key: str) -> FeedbackRecord:
            body = self._store.get(key)
            try:
                return from_json(body or b"", FeedbackRecord, key)
            except UsageError as error:
                raise StoreError(f"{key} in the store is not feedback: {error} If it is damaged, delete it.") from None

        with ThreadPoolExecutor(_READERS) as pool:
            return list(pool.map(get, keys))


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


def _folder(digest: str, user: str | None) -> str:
    """Where a user's feedback on a version lies: by the tag, so that one listing tells how much there is."""
    return f"{_prefix(digest)}{user or _ANONYMOUS}/"


def _prefix(digest: str) -> str:
    return f"{FOLDER}/{Digest.parse(digest).hex}/"
