"""How far a review is, as promotions that wait for it hear it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.unit.review.builders import DIGESTS, build_review, make_mark
from tests.waiting import wait_for
from tunegate.api.evaluation import ReviewProgress
from tunegate.review import telling
from tunegate.review.marks import latest
from tunegate.review.telling import progress
from tunegate.store import Store
from tunegate.store.evaluations import find_progress


def test_it_says_how_many_items_are_marked_and_by_whom() -> None:
    review = build_review(versions=2, questions=5, share=0.2, criteria=())
    own = {version: [item.digest for item in review.items if item.answers[0].version == version] for version in (0, 1)}
    marks = [make_mark(digest, "Li", "quality", 4) for digest in own[0][:3]]
    marks += [make_mark(own[0][0], "Ana", "quality", 4), make_mark(own[1][0], "Ana", "quality", 4)]
    first, second = progress(review, latest(marks))
    assert (first.digest, first.suite, first.items, first.marked) == (DIGESTS[0], "shop.people", 5, 3)
    assert first.reviewers == {"Ana": 1, "Li": 3}
    assert str(second).startswith("1 of 5 items marked, by Ana (1); 1 of ")
    assert first.needed + second.needed == 12


def test_an_item_is_marked_once_somebody_judged_it_by_every_criterion() -> None:
    review = build_review(questions=2, share=0)
    (half,) = progress(review, latest([make_mark(next(iter(review.judged)), "Li", "correct", 1)]))
    assert str(half) == "0 of 2 items marked, by nobody yet; 0 of 2 judgements"


def test_of_many_reviewers_the_busiest_are_named() -> None:
    people = {f"r{number}": number for number in range(8)}
    said = ReviewProgress(
        digest=DIGESTS[0], suite="shop.people", items=50, marked=28, judgements=28, needed=60, reviewers=people
    )
    assert "by r7 (7), r6 (6), r5 (5), r4 (4), r3 (3) and 3 others; 28 of 60" in str(said)


def test_it_is_told_while_people_judge_and_at_the_end(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "_SECONDS", 0.01)
    review = build_review(questions=3, share=0, criteria=())
    marks = [make_mark(digest, "Li", "quality", 4) for digest in review.judged]
    there: list[int] = [0]

    def told() -> str:
        return str(find_progress(store, DIGESTS[0], "shop.people"))

    seen: Callable[[], list[ReviewProgress]] = lambda: progress(review, latest(marks[: there[0]]))  # noqa: E731
    with telling.telling(store, seen):
        wait_for(lambda: told().startswith("0 of 3 items marked"))
        there[0] = 1
        wait_for(lambda: told().startswith("1 of 3 items marked, by Li (1)"))
        monkeypatch.setattr(telling, "_SECONDS", 60)
        there[0] = 3
    assert told().startswith("3 of 3")


def test_what_can_not_be_read_is_not_said(store: Store) -> None:
    store.put(f".tunegate/reviews/{DIGESTS[0].partition(':')[2]}/shop.people.json", b"{}")
    assert find_progress(store, DIGESTS[0], "shop.people") is None
