"""`tunegate experience`: what it refuses is well once the message's words were followed."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from tests.refusals import call, refused
from tests.unit.experience.logs import MONDAY, PRICE, answered, keep_in
from tunegate.cli import experience
from tunegate.feedback import VoteWriter
from tunegate.feedback.interactions import FOLDER
from tunegate.feedback.segments import Segment, segment_key
from tunegate.store import Store

DAYS = ("--since", "2026-03-02", "--until", "2026-03-08")


@pytest.fixture
def where(store: Store) -> list[str]:
    keep_in(store)
    return ["--store", store.uri, "--endpoint-url", str(store.endpoint_url)]


def test_days_in_the_wrong_order_are_named(where: list[str]) -> None:
    with refused("is after --until"):
        call("experience", "report", "--since", "2026-03-09", "--until", "2026-03-08", *where)
    assert "3 answers, 3 judged, 2 disliked" in call("experience", "report", *DAYS, *where)


def test_what_is_taken_goes_where_it_was_said(where: list[str], tmp_path: Path) -> None:
    folder, suite, corpus = tmp_path / "review", tmp_path / "suite", tmp_path / "corpus.jsonl"
    call("experience", "review", folder, *DAYS, *where)
    with refused("Nothing is taken unless you say where to"):
        call("review", "take", folder)
    suite.mkdir()
    about = "name: shop\nkind: business\nlanguage: zh\ndescription: d\nlicense: ours\nmax_tokens: 9\n"
    (suite / "suite.yaml").write_text(about)
    rule = '"rules": [{"kind": "contains", "any": ["a"]}]'
    (suite / "questions.jsonl").write_text(f'{{"id": "a", "messages": [{{"role": "user", "content": "?"}}], {rule}}}\n')
    with refused("has no criteria in suite.yaml"):
        call("review", "take", folder, "--suite", suite)
    (suite / "suite.yaml").write_text(about + "criteria: [{name: quality, points: 5}]\n")
    assert "0 added" in call("review", "take", folder, "--suite", suite)
    corpus.write_text("no json")
    with refused("is not a file of JSON lines"):
        call("review", "take", folder, "--corpus", corpus)
    assert corpus.read_text() == "no json"
    said = call("review", "take", folder, "--corpus", tmp_path / "new.jsonl")
    assert "2 are not decided yet" in said


def test_the_last_week_says_which_days(where: list[str]) -> None:
    with refused("--last-week says which days; leave out --since and --until"):
        call("experience", "report", "--last-week", *DAYS, *where)
    assert "Nothing was answered in this period" in call("experience", "report", "--last-week", *where)


@pytest.mark.parametrize(
    ("days", "more", "words"),
    [
        ([0], [], "2026-02-24 to 2026-03-02: 1 answers"),
        ([0], ["--save"], "Nothing was answered in this period"),
        ([1, 0], [], "2026-02-23 to 2026-03-01: 1 answers"),
    ],
    ids=["today alone", "kept", "days before"],
)
def test_today_is_looked_at_where_the_log_begins_today(
    days: list[int], more: list[str], words: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day that is not over is better than nothing; what is kept, and what has days before it, is of whole days."""
    monkeypatch.setattr(experience, "_today", lambda: MONDAY)
    found = [answered(1 - 1440 * day, PRICE[0], "down") for day in days]
    for day, each in zip(days, found, strict=True):
        key = segment_key(FOLDER, MONDAY - timedelta(days=day), "a" * 12, 0)
        store.put(key, Segment().with_lines([msgspec.json.encode(each.interaction)]).to_bytes())
    VoteWriter(store).write([each.vote for each in found if each.vote])
    assert words in call("experience", "report", *more, "--store", store.uri, "--endpoint-url", store.endpoint_url)
