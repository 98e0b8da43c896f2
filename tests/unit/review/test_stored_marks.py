"""A review in a bucket: whoever serves it may be killed, and what was called saved is there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.unit.review.builders import build_review, make_mark
from tests.unit.review.test_server import GOOD, Client
from tunegate.api.errors import DataError, EvaluationError, UsageError
from tunegate.review.desk import Desk, Join
from tunegate.review.marks import Mark
from tunegate.review.places import Place, open_place
from tunegate.review.stored_marks import StoredMarks
from tunegate.store import Store

TOKEN = "a token that is kept in a Secret"


@contextmanager
def pod(uri: str, end: int = signal.SIGKILL) -> Iterator[tuple[str, list[str]]]:
    """The URL of a review that a process of its own serves to other machines, and what it printed."""
    argv = [sys.executable, "-m", "tunegate", "review", "serve", uri, "--host", "0.0.0.0", "--port", "0"]  # noqa: S104
    variables = {**os.environ, "TUNEGATE_REVIEW_TOKEN": TOKEN}
    printed: list[str] = []
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=variables) as child:
        try:
            assert child.stdout is not None
            printed.append(child.stdout.readline().strip())
            yield printed[0].partition("#")[0].replace("0.0.0.0", "127.0.0.1"), printed  # noqa: S104
        finally:
            child.send_signal(end)
            printed.append(child.communicate(timeout=100)[0])


@pytest.fixture
def place(store: Store) -> Place:
    found = open_place(f"{store.uri}/reviews/shop", store.endpoint_url)
    found.keep(build_review(questions=3, share=0))
    return found


def test_a_pod_that_is_killed_loses_nothing_that_was_called_saved(place: Place) -> None:
    saved: list[str] = []
    li = Client("", authorization=f"Bearer {TOKEN}")
    for end in (signal.SIGKILL, signal.SIGTERM):
        with pod(str(place), end) as (li.url, printed):
            assert li.join("Li", li.code)[0] == 200
            digest = li.ask("next")[1]["item"]["digest"]
            saved += [li.mark(digest, criterion, value)[1]["saved"] for criterion, value in GOOD.items()]
            assert li.ask("next", authorization="Bearer guess")[0] == 403
            assert li.ask("next", authorization="")[0] == 403
        assert TOKEN not in "".join(printed), "a pod's log is no place for it"
        assert "Traceback" not in printed[1]
    assert [line.id for line in place.lines("marks") if isinstance(line, Mark)] == saved


def test_two_servers_of_one_review_lose_nothing_to_each_other(place: Place) -> None:
    one, other = (Desk(place.review(), place.open("marks")) for _ in range(2))
    one.join(Join(name="Li"))
    with pytest.raises(EvaluationError, match="Another server wrote to this review meanwhile, which was read; send"):
        other.join(Join(name="Ana"))
    other.join(Join(name="Ana"))
    with pytest.raises(EvaluationError):
        one.join(Join(name="Wu"))
    assert one.join(Join(name="Wu"))["reviewer"] == "Wu"
    assert len(place.lines("marks")) == 3


def test_lines_come_back_in_their_order_and_kinds_apart(place: Place) -> None:
    log = place.open("marks")
    marks = [make_mark("sha256:1", "Li", "tone", value) for value in (1, 2, 3)]
    for mark in marks:
        log.append(mark)
    log.close()
    assert place.open("marks").lines == marks
    assert place.lines("judge") == []


def test_a_line_that_can_not_be_read_is_named(place: Place, store: Store) -> None:
    store.put("reviews/shop/marks/00000001.json", b"{")
    with pytest.raises(DataError, match=r"reviews/shop/marks/00000001.json is not a mark .*put the object back"):
        place.open("marks")


def test_a_place_without_a_review_says_how_to_make_one(store: Store, tmp_path: Path) -> None:
    for name in (f"{store.uri}/nowhere", str(tmp_path / "no where")):
        with pytest.raises(UsageError, match=r"There is no review in .*; make one with: tunegate review create "):
            open_place(name, store.endpoint_url).review()


def test_what_the_store_refuses_is_not_among_the_lines(store: Store) -> None:
    log = StoredMarks(store, "marks")
    log.append(make_mark("sha256:1", "Li", "tone", 1))
    store.put("marks/00000002.json", b'{"kind":"joined","reviewer":"Ana","code":"","time":"2026-03-04T00:00:00Z"}')
    with pytest.raises(EvaluationError):
        log.append(make_mark("sha256:1", "Li", "tone", 2))
    assert len(log.lines) == 2
