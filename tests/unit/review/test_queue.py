"""Who gets what, in which order, on which side."""

from __future__ import annotations

import pytest

from tests.unit.review.builders import CRITERIA, build_review, make_mark
from tunegate.review import queue
from tunegate.review.items import Review
from tunegate.review.marks import Mark, Marks, latest


def marks_of(review: Review, reviewer: str, digest: str) -> list[Mark]:
    return [make_mark(digest, reviewer, criterion.name, 1) for criterion in review.criteria]


def work_through(review: Review, marks: list[Mark], *reviewers: str) -> dict[str, list[str]]:
    """Everybody judges in turn until nothing is left for anybody: what each got."""
    got: dict[str, list[str]] = {reviewer: [] for reviewer in reviewers}
    open_with: dict[str, str] = {}
    turn = True
    while turn:
        turn = False
        for reviewer in reviewers:
            done = queue.judged(review, latest(marks))
            if (digest := queue.next_item(review, done, open_with, reviewer)) is not None:
                open_with[reviewer] = digest
                got[reviewer].append(digest)
                marks.extend(marks_of(review, reviewer, digest))
                turn = True
    return got


def test_two_of_ten_items_get_two_reviewers_and_nobody_judges_twice() -> None:
    review, marks = build_review(questions=10), list[Mark]()
    got = work_through(review, marks, "li", "ana", "tom")

    assert sum(len(digests) for digests in got.values()) == 12
    assert all(len(digests) == len(set(digests)) for digests in got.values())
    per_item = [sum(digest in digests for digests in got.values()) for digest in review.judged]
    assert sorted(per_item) == [1] * 8 + [2] * 2
    assert queue.progress(review, queue.judged(review, latest(marks))) == queue.Progress(12, 12)


def test_one_reviewer_alone_can_not_finish_what_needs_two() -> None:
    review, marks = build_review(questions=10), list[Mark]()
    assert len(work_through(review, marks, "li")["li"]) == 10
    assert queue.progress(review, queue.judged(review, latest(marks))) == queue.Progress(10, 12)
    assert len(work_through(review, marks, "ana")["ana"]) == 2


def test_what_somebody_left_open_is_given_away_at_the_end() -> None:
    review = build_review(questions=3, share=0)
    stopped = queue.order(review, "li")[0]
    marks: Marks = {}
    got = []
    while (digest := queue.next_item(review, queue.judged(review, marks), {"li": stopped}, "ana")) is not None:
        got.append(digest)
        marks |= latest(marks_of(review, "ana", digest))
    assert (len(got), got[-1]) == (3, stopped)


def test_an_item_is_judged_when_every_criterion_is() -> None:
    review = build_review(questions=1, share=0)
    (digest,) = review.judged
    marks = marks_of(review, "li", digest)
    assert queue.judged(review, latest(marks[:1])) == {digest: set()}
    assert queue.judged(review, latest(marks)) == {digest: {"li"}}


def test_order_and_sides_are_each_reviewers_own_and_the_same_after_a_restart() -> None:
    review, again = (build_review("pairs", versions=2, questions=40, criteria=CRITERIA[:1]) for _ in range(2))
    assert queue.order(review, "li") == queue.order(again, "li")
    assert queue.order(review, "li") != queue.order(review, "ana")
    sides = {name: [queue.left(review, item, name) for item in review.items] for name in ("li", "ana")}
    assert sides["li"] == [queue.left(again, item, "li") for item in again.items]
    assert sides["li"] != sides["ana"]
    assert 10 < sum(sides["li"]) < 30


@pytest.mark.parametrize(("share", "total"), [(0.0, 10), (0.2, 12), (1.0, 20)])
def test_the_share_with_several_reviewers_is_exact(share: float, total: int) -> None:
    review = build_review(questions=10, share=share)
    assert queue.progress(review, queue.judged(review, {})).total == total
