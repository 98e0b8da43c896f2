"""Evaluations in the store: one document for each version digest and suite. Knows nothing of how they were made."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING

from tunegate.api.codec import from_json, to_json
from tunegate.api.digest import Digest
from tunegate.api.errors import UsageError
from tunegate.api.evaluation import Evaluation, ReviewProgress

if TYPE_CHECKING:
    from tunegate.store import Store


_FOLDER, _EARLIER_FOLDER = ".tunegate/evaluations/", ".tunegate/evaluations-before/"


def save(store: Store, evaluation: Evaluation) -> None:
    """Keep `evaluation` in place of an earlier one of the same digest and suite.

    Promotions may have been decided on that one, so it stays, too, by the digest of its bytes.
    """
    key, body = _key(evaluation.digest, evaluation.suite), to_json(evaluation)
    before = store.get(key)
    if before is not None and before != body:
        store.put_new(earlier_key(key, str(Digest.of_bytes(before))), before)
    store.put(key, body)


def earlier_key(key: str, document: str) -> str:
    """Where the document with this digest is, that was under `key` before."""
    return f"{_earlier(key)}{Digest.parse(document).hex}.json"


def earlier(store: Store, key: str) -> list[bytes]:
    """The documents that were under `key` before."""
    return [body for each in store.keys(_earlier(key)) if (body := store.get(each)) is not None]


def _earlier(key: str) -> str:
    return f"{key.removesuffix('.json').replace(_FOLDER, _EARLIER_FOLDER, 1)}/"


def find(store: Store, digest: str, suite: str) -> Evaluation | None:
    """The last saved evaluation of the version with `digest` on `suite`, by name; None when there is none."""
    key = _key(digest, suite)
    body = store.get(key)
    return None if body is None else from_json(body, Evaluation, key)


def find_measured(store: Store, digest: str, suite: str, started: datetime) -> Evaluation | None:
    """The evaluation that was begun at `started`, also where a later one has taken its place; None where it is gone."""
    key = _key(digest, suite)
    bodies = (body for body in (store.get(key), *earlier(store, key)) if body is not None)
    found = (from_json(body, Evaluation, key) for body in bodies)
    return next((evaluation for evaluation in found if evaluation.started == started), None)


def of_version(store: Store, digest: str) -> list[Evaluation]:
    """The last saved evaluation of the version with `digest` on each suite, by the suite's name."""
    keys = keys_of_version(store, digest)
    return [from_json(body, Evaluation, key) for key in keys if (body := store.get(key)) is not None]


def measured_suites(store: Store, digest: str) -> list[str]:
    """The names of the suites that the version with `digest` has an evaluation on."""
    folder = _folder(digest)
    return [key.removeprefix(folder).removesuffix(".json") for key in store.keys(folder)]


def keys_of_version(store: Store, digest: str) -> list[str]:
    """The keys of the evaluations of the version with `digest`, by the suite's name."""
    return store.keys(_folder(digest))


def save_progress(store: Store, progress: ReviewProgress) -> None:
    """Keep how far a review is, in place of what was before."""
    store.put(_progress_key(progress.digest, progress.suite), to_json(progress))


def find_progress(store: Store, digest: str, suite: str) -> ReviewProgress | None:
    """How far people are with the suite; None also for what can't be read: nothing is decided by it."""
    body = store.get(key := _progress_key(digest, suite))
    with suppress(UsageError):
        return None if body is None else from_json(body, ReviewProgress, key)
    return None


def _progress_key(digest: str, suite: str) -> str:
    return f".tunegate/reviews/{Digest.parse(digest).hex}/{suite}.json"


def _folder(digest: str) -> str:
    return f"{_FOLDER}{Digest.parse(digest).hex}/"


def _key(digest: str, suite: str) -> str:
    return f"{_folder(digest)}{suite}.json"
