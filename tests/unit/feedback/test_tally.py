from __future__ import annotations

import msgspec
import pytest

from tunegate.api.feedback import Tally, step_tag
from tunegate.feedback.tally import Caps, Vote, count_votes, counting


def votes(*said: str) -> list[Vote]:
    """`anna+` is a thumb up of anna, `-` one down of an unnamed user; received in this order."""
    return [
        Vote(second, word[:-1] or None, 0, second, "up" if word[-1] == "+" else "down")
        for second, word in enumerate(said)
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


@pytest.mark.parametrize(
    ("seconds", "tally"),
    [((0, 1), Tally(up=1)), ((0, 600), Tally(up=1)), ((0, 601), Tally(down=1)), ((0, 9, 601), Tally(up=1))],
    ids=["at once", "in time", "too late", "the last one in time"],
)
def test_of_an_answer_the_last_verdict_that_came_in_time_counts(seconds: tuple[int, ...], tally: Tally) -> None:
    said = zip(votes("anna-", "anna+", "anna-"), seconds, strict=False)
    same = [msgspec.structs.replace(vote, id=7, received=second) for vote, second in said]
    assert count_votes(reversed(same)) == {None: tally}


def test_an_amendment_takes_nothing_of_its_users_share_and_keeps_its_place() -> None:
    first, *others = votes("anna+", "anna+", "anna+", "anna+")
    amended = msgspec.structs.replace(first, verdict="down", received=500.0)
    assert count_votes([first, *others, amended]) == {None: Tally(up=2, down=1)}


def test_a_repeat_takes_nothing_of_its_users_share() -> None:
    said = votes("anna+", "anna+", "anna-", "anna-")
    repeated = [said[0], msgspec.structs.replace(said[1], id=0), *said[2:]]
    assert count_votes(repeated) == {None: Tally(up=1, down=2)}


def test_verdicts_are_counted_by_the_step_of_their_answers_and_a_users_over_the_steps_of_a_promotion() -> None:
    first, second, other = step_tag("shop-run-1", 0), step_tag("shop-run-1", 1), step_tag("shop-run-2", 0)
    said = zip(
        votes("anna+", "ben-", "anna+", "anna-", "anna-", "-", "anna-"),
        (first, first, second, second, second, None, other),
        strict=True,
    )
    counts = count_votes(msgspec.structs.replace(vote, step=step) for vote, step in said)

    assert counts == {
        first: Tally(up=1, down=1),
        second: Tally(up=1, down=1),
        None: Tally(down=1),
        other: Tally(down=1),
    }


def test_a_server_forgets_who_voted_long_ago() -> None:
    caps = Caps(most=2)
    assert [caps.admit("anna", None) for _ in range(4)] == [True, True, True, False]
    assert [caps.admit(user, None) for user in ("ben", "cleo", "anna")] == [True, True, True]


@pytest.mark.parametrize(("per_address", "counted"), [(None, 7), (1, 3), (5, 7)])
def test_unnamed_users_of_one_address_share_what_the_policy_gives_it(per_address: int | None, counted: int) -> None:
    said = votes("@07-", "@07-", "@07+", "@07-", "@07-", "@08-", "anna-")
    assert len([*counting(said, per_address)]) == counted
