from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tunegate.api.feedback import Tally
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
        ((), Tally()),
        (("anna+", "ben-"), Tally(up=1, down=1)),
        (("anna+", "anna+", "anna+", "anna-", "anna-"), Tally(up=3)),
        (("anna-", "anna-", "anna-", "anna-", "ben-"), Tally(down=4)),
        (("-",) * 5, Tally(down=5)),
    ],
    ids=["none", "two users", "the first three", "of each user", "unnamed ones"],
)
def test_of_each_user_the_first_few_count(said: tuple[str, ...], tally: Tally) -> None:
    assert count_votes(votes(*said)) == tally


def test_the_order_received_decides() -> None:
    assert count_votes(reversed(votes("anna+", "anna+", "anna+", "anna-"))) == Tally(up=3)
