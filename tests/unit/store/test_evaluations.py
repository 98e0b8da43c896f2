from __future__ import annotations

import pytest

from tests.builders import make_evaluation, make_version
from tunegate.api.errors import UsageError
from tunegate.store import Store
from tunegate.store.evaluations import find, save

VERSION = make_version("run")


def test_what_was_saved_is_found_by_digest_and_suite(store: Store) -> None:
    evaluation = make_evaluation(VERSION, "quality", score=0.5, broken=None)
    save(store, evaluation)
    assert find(store, VERSION.digest, "quality") == evaluation
    assert find(store, VERSION.digest, "other") is None
    assert find(store, make_version("another").digest, "quality") is None
    assert store.keys(".tunegate/evaluations/") == [f".tunegate/evaluations/{VERSION.digest[7:]}/quality.json"]


def test_the_last_result_takes_the_place_of_an_earlier_one(store: Store) -> None:
    save(store, make_evaluation(VERSION, score=0.5))
    save(store, make_evaluation(VERSION, score=0.75))
    assert find(store, VERSION.digest, "quality") == make_evaluation(VERSION, score=0.75)


def test_a_damaged_result_is_named(store: Store) -> None:
    key = f".tunegate/evaluations/{VERSION.digest[7:]}/quality.json"
    store.put(key, b'{"score": 1}')
    with pytest.raises(UsageError, match=r"quality\.json is not a valid Evaluation"):
        find(store, VERSION.digest, "quality")
