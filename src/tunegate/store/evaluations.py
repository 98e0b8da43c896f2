"""Evaluations in the store: one document for each version digest and suite. Knows nothing of how they were made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunegate.api.codec import from_json, to_json
from tunegate.api.digest import Digest
from tunegate.api.evaluation import Evaluation

if TYPE_CHECKING:
    from tunegate.store import Store


def save(store: Store, evaluation: Evaluation) -> None:
    """Keep `evaluation` in place of an earlier one of the same digest and suite."""
    store.put(_key(evaluation.digest, evaluation.suite), to_json(evaluation))


def find(store: Store, digest: str, suite: str) -> Evaluation | None:
    """The last saved evaluation of the version with `digest` on `suite`, by name; None when there is none."""
    key = _key(digest, suite)
    body = store.get(key)
    return None if body is None else from_json(body, Evaluation, key)


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


def _folder(digest: str) -> str:
    return f".tunegate/evaluations/{Digest.parse(digest).hex}/"


def _key(digest: str, suite: str) -> str:
    return f"{_folder(digest)}{suite}.json"
