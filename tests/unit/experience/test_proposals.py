"""From disliked answers by way of reviewers to a suite, a corpus and pairs."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.refusals import refused, without_story
from tests.unit.experience.logs import DELIVERY, PRICE, WEEK, answered, log
from tunegate.evaluation.criteria import Criterion
from tunegate.experience.gather import experience_of
from tunegate.experience.proposals import to_review
from tunegate.review.decisions import new_lines, take
from tunegate.review.items import CORPUS, SUITE, Review
from tunegate.review.marks import COMMENT, Mark, latest


@pytest.fixture
def review() -> Review:
    found = log(
        answered(1, PRICE[0], "down", answer="免费。", correction="99 元。", comment="不对", rating=1),
        answered(2, DELIVERY[0], "down", answer="三年。"),
    )
    return to_review(experience_of(found, WEEK))


def mark(review: Review, place: int, criterion: str, value: int | str, reviewer: str = "ann") -> Mark:
    item = review.items[place]
    return Mark(
        id=f"{place}-{criterion}-{reviewer}",
        item=item.question,
        answers=item.digest,
        reviewer=reviewer,
        criterion=criterion,
        value=value,
        seconds=1,
        time=datetime(2026, 3, 9, tzinfo=UTC),
    )


def test_reviewers_see_what_was_asked_said_and_wanted(review: Review) -> None:
    item = next(item for item in review.items if item.reference)
    assert [message.content for message in item.messages] == [PRICE[0]]
    assert item.answers[0].text == "免费。"
    assert item.reference == "99 元。"
    assert "不对" in item.context
    assert "评分：1 / 5" in item.context


def test_what_most_said_yes_to_is_taken(review: Review) -> None:
    with_reference = next(place for place, item in enumerate(review.items) if item.reference)
    other = 1 - with_reference
    marks = [
        mark(review, with_reference, "suite", 1),
        mark(review, with_reference, "corpus", 1),
        mark(review, other, "suite", 0),
        mark(review, other, "corpus", 1),
        mark(review, other, COMMENT, "两天。"),
    ]
    taken = take(review, latest(marks))
    (question,) = taken.questions
    assert (question.reference, question.messages[0].content) == ("99 元。", PRICE[0])
    better = {row["messages"][0]["content"]: row["messages"][-1]["content"] for row in taken.rows}
    assert better == {PRICE[0]: "99 元。", DELIVERY[0]: "两天。"}
    assert {pair["rejected"][0]["content"] for pair in taken.pairs} == {"免费。", "三年。"}
    assert taken.rows[0]["reviewers"] == ["ann"]
    assert taken.rows[0]["origin"]["kind"] == "experience"
    assert taken.undecided == 0


def test_what_is_undecided_or_has_no_better_answer_is_counted(review: Review) -> None:
    without = next(place for place, item in enumerate(review.items) if not item.reference)
    taken = take(review, latest([mark(review, without, "suite", 0), mark(review, without, "corpus", 1)]))
    assert (taken.unanswered, taken.undecided, taken.rows) == ((review.items[without].question,), 1, ())


def test_a_tie_of_reviewers_is_no_yes(review: Review) -> None:
    marks = [mark(review, 0, name, value, who) for name in ("suite", "corpus") for value, who in ((1, "a"), (0, "b"))]
    taken = take(review, latest(marks))
    assert (taken.questions, taken.rows) == ((), ())


def test_better_answers_that_differ_are_named_and_not_chosen_from(review: Review) -> None:
    said = [mark(review, 0, name, 1, who) for name in ("suite", "corpus") for who in ("ann", "bo", "cy")]
    said[-1] = mark(review, 0, "corpus", 0, "cy")
    said[-4] = mark(review, 0, "suite", 0, "cy")
    written = [mark(review, 0, COMMENT, text, who) for who, text in (("ann", "98 元。"), ("bo", "九十八。"))]
    alone = mark(review, 0, COMMENT, "不学。", "cy")  # said no, so it is no better answer
    taken = take(review, latest([*said, *written, alone]))
    assert (taken.disputed, taken.rows, taken.questions) == ((review.items[0].question,), (), ())
    agreed = take(review, latest([*said, written[0], mark(review, 0, COMMENT, "98 元。 ", "bo"), alone]))
    assert (agreed.disputed, agreed.rows[0]["messages"][-1]["content"]) == ((), "98 元。")


def test_nothing_is_added_twice() -> None:
    assert new_lines([{"id": "a"}], [{"id": "a"}, {"id": "b"}]) == [{"id": "b"}]


def test_another_kind_of_review_is_refused(review: Review) -> None:
    from msgspec.structs import replace

    with refused("This is no review of proposals"):
        take(replace(review, criteria=(Criterion(name="quality"),)), {})


def test_without_proposals_there_is_nothing_to_decide_on() -> None:
    assert not to_review(experience_of(log(), WEEK)).judged


def test_both_are_questions_with_no_and_yes() -> None:
    assert [criterion.labels for criterion in (SUITE, CORPUS)] == [("no", "yes")] * 2


def test_every_message_has_its_story() -> None:
    assert without_story("experience", Path(__file__)) == []
