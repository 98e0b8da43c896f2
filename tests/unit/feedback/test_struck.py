"""Answers that are no evidence: what is written is read, by version and day, also where a document is damaged."""

from __future__ import annotations

import logging
from datetime import UTC, date, datetime, timedelta

import pytest

from tests.documents import Documents
from tunegate.api.feedback import Struck
from tunegate.feedback import struck

ONE, TWO = "sha256:" + "ab" * 32, "sha256:" + "cd" * 32
NOON = datetime(2026, 3, 4, 12, 0, 0, 500_000, tzinfo=UTC)


def make_struck(digest: str, day: int = 0) -> Struck:
    since = NOON + timedelta(days=day)
    return Struck(digest=digest, since=since, until=since + timedelta(seconds=40), reason="Other weights answered.")


def test_what_was_struck_is_found_by_version_and_by_day() -> None:
    store = Documents()
    first, later, other = make_struck(ONE), make_struck(ONE, day=2), make_struck(TWO)
    for each in (first, first, later, other):
        struck.write(store, each)
    store.put(f"{struck.FOLDER}/notes.txt", b"not ours")

    assert struck.read(store, ONE) == [first, later]
    assert struck.read(store) == [first, later, other]
    assert struck.read(store, ONE, since=date(2026, 3, 5)) == [later]
    assert struck.read(store, since=date(2026, 3, 4)) == [first, later, other]


def test_answers_from_the_last_good_look_to_the_bad_one_are_covered() -> None:
    one = make_struck(ONE)
    assert [one.covers(NOON + timedelta(seconds=at)) for at in (-1, 0, 40, 41)] == [False, True, True, False]


def test_a_damaged_document_strikes_what_its_key_says(caplog: pytest.LogCaptureFixture) -> None:
    store = Documents()
    struck.write(store, whole := make_struck(ONE))
    (key,) = (entry.key for entry in store.entries(f"{struck.FOLDER}/"))
    store.put(key, b'{"digest": ')

    with caplog.at_level(logging.WARNING):
        (found,) = struck.read(store, ONE)

    assert found.digest == ONE
    assert found.covers(whole.since)
    assert found.covers(whole.until)
    assert key in found.reason
    assert "damaged" in caplog.text
