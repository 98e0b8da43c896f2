from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tunegate.api.feedback import Tally, step_tag
from tunegate.feedback.tally import Vote, count_votes

START = datetime(2026, 1, 1, tzinfo=UTC)


def votes(*said: str) -> list[Vote]:
    """`anna+` is a thumb up of anna, `-` one down of an unnamed user; received in this order."""
    return [
        Vote(word[:-1] or None, START, START + timedelta(minutes=minute), "up" if word[-1] == "+" else "down")
        for minute, word in enumerate(said)
    ]


@pytest.mark.parametrize(
    ("said", "tally"),
    [
        (("anna+",), Tally(up=1)),
        (("anna+", "ben-"), Tally(up=1, down=1)),
        (("anna+", "anna+", "anna+", "anna-", "anna-"), Tally(up=3)),
        (("anna-", "anna-", "anna-", "anna-", "ben-"), Tally(down=4)),
        (("-",) * 5, Tally(down=5)),
    ],
    ids=["one", "two users", "the first three", "of each user", "unnamed ones"],
)
def test_of_each_user_the_first_few_count(said: tuple[str, ...], tally: Tally) -> None:
    assert count_votes(votes(*said)) == {None: tally}


def test_the_order_received_decides() -> None:
    assert count_votes(reversed(votes("anna+", "anna+", "anna+", "anna-"))) == {None: Tally(up=3)}


def test_no_votes_are_none_of_any_step() -> None:
    assert count_votes([]) == {}


def test_verdicts_are_counted_by_the_step_of_their_answers_and_a_users_over_all_steps() -> None:
    first, second = step_tag("shop-run-1", 0), step_tag("shop-run-1", 1)
    said = zip(
        votes("anna+", "ben-", "anna+", "anna-", "anna-", "-"),
        (first, first, second, second, second, None),
        strict=True,
    )
    counts = count_votes(replace(vote, step=step) for vote, step in said)

    assert counts == {first: Tally(up=1, down=1), second: Tally(up=1, down=1), None: Tally(down=1)}
