"""Answers that are no evidence: those that a version's server gave while its engine answered with other weights.

One small document each, in the store, by the version and by when the answers were given.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

from tunegate.api.codec import from_json, to_json
from tunegate.api.digest import Digest
from tunegate.api.errors import UsageError
from tunegate.api.feedback import Struck
from tunegate.feedback.segments import Documents

logger = logging.getLogger(__name__)
FOLDER = ".tunegate/struck"
# Both times stand in the key, too: what is damaged must strike no less.
_KEY = re.compile(
    rf"{re.escape(FOLDER)}/(?P<hex>[0-9a-f]{{64}})/(?P<since>\d{{8}}T\d{{6}}Z)-(?P<until>\d{{8}}T\d{{6}}Z)\S*"
)
_TIME = "%Y%m%dT%H%M%SZ"


def write(store: Documents, struck: Struck) -> None:
    """Keep it: the same again is one document. Raises StoreError."""
    body = to_json(struck)
    times = (struck.since, struck.until + timedelta(seconds=1))  # whole seconds, and no fewer
    since, until = (time.astimezone(UTC).strftime(_TIME) for time in times)
    name = f"{since}-{until}-{Digest.of_bytes(body).hex[:12]}.json"
    store.put(f"{FOLDER}/{Digest.parse(struck.digest).hex}/{name}", body)


def read(store: Documents, digest: str | None = None, since: date | None = None) -> list[Struck]:
    """What was struck of one version, or of all, that holds answers of the day `since` or later. Raises StoreError."""
    folder = f"{FOLDER}/{Digest.parse(digest).hex}/" if digest else f"{FOLDER}/"
    return list(_read(store, folder, since))


def _read(store: Documents, folder: str, since: date | None) -> Iterator[Struck]:
    for entry in store.entries(folder):
        match = _KEY.fullmatch(entry.key)
        if match is None or (since and _time(match["until"]).date() < since):
            continue
        try:
            yield from_json(store.get(entry.key) or b"", Struck, entry.key)
        except UsageError as error:
            logger.warning("a struck document is damaged; the times in its key count", extra={"error": str(error)})
            reason = f"Other weights answered; {entry.key} in the store, which should say more, is damaged."
            since_then, until_then = _time(match["since"]), _time(match["until"])
            yield Struck(digest=str(Digest(match["hex"])), since=since_then, until=until_then, reason=reason)


def _time(text: str) -> datetime:
    return datetime.strptime(text, _TIME).replace(tzinfo=UTC)
