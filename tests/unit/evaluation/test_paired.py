from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
import pytest

from tunegate.api.evaluation import Evaluation, Record
from tunegate.evaluation.paired import compare_items, items_needed, mcnemar


def make(right: Sequence[bool | None]) -> Evaluation:
    """One record a question; None was answered and not scored."""
    records = tuple(
        Record(
            id=str(number),
            prompt=f"{number}?",
            expected="A",
            answer="A" if is_right else "B",
            scores={"answered": 1.0} | ({} if is_right is None else {"accuracy": float(is_right)}),
        )
        for number, is_right in enumerate(right)
    )
    return Evaluation(
        version="shop/run/checkpoint-1", digest="d", suite="ceval", suite_digest="s", metrics=(), records=records,
        code_version="1", started=datetime(2026, 1, 2, tzinfo=UTC), seconds=1.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [(0, 0, 1.0), (1, 0, 1.0), (8, 20, 0.0357), (20, 8, 0.0357), (5, 5, 1.0), (6, 0, 0.03125)],
)
def test_the_exact_p_of_mcnemar(gained: int, lost: int, p: float) -> None:
    assert mcnemar(gained, lost) == pytest.approx(p, abs=1e-4)


def test_thousands_of_changed_answers_have_a_p() -> None:
    assert mcnemar(0, 5000) == 0
    assert mcnemar(2500, 2500) == 1


def test_versions_that_are_alike_are_called_different_in_at_most_one_of_twenty_cases() -> None:
    for flips in (5, 10, 30, 80):
        called = sum(math.comb(flips, gained) for gained in range(flips + 1) if mcnemar(gained, flips - gained) < 0.05)
        assert called / 2**flips <= 0.05


@pytest.mark.parametrize(("gained", "lost", "items"), [(15, 5, 155), (20, 10, 234)])
def test_the_questions_that_would_show_a_difference(gained: int, lost: int, items: int) -> None:
    """A difference of 10 points where 20 and 30 % of the answers differ: 5 % wrong, 80 % found."""
    n = 100
    needed = items_needed(gained, lost, n)
    assert needed is not None
    difference, discordant = (gained - lost) / n, (gained + lost) / n
    # the power at that many, by the normal approximation of the number of flips to either side
    total = needed + n
    z = (difference * math.sqrt(total) - 1.96 * math.sqrt(discordant)) / math.sqrt(discordant - difference**2)
    assert z == pytest.approx(0.8416, abs=0.02)
    assert total == items


def test_what_changed_is_listed_losses_first() -> None:
    paired = compare_items(make([True, True, False, None]), make([True, False, True, True]))
    assert paired is not None
    assert (paired.n, paired.gained, paired.lost, paired.difference, paired.p) == (3, 1, 1, 0, 1)
    assert [(flip.id, flip.is_gain, flip.before, flip.after) for flip in paired.flips] == [
        ("1", False, "A", "B"),
        ("2", True, "B", "A"),
    ]
    assert paired.more is None


def test_a_difference_that_is_shown_needs_no_more_questions() -> None:
    paired = compare_items(make([False] * 6), make([True] * 6))
    assert paired is not None
    assert (paired.p < 0.05, paired.more) == (True, None)


def test_without_questions_that_were_scored_for_both_there_is_nothing_to_compare() -> None:
    assert compare_items(make([None]), make([True])) is None


def test_a_cluster_counts_once_by_the_side_that_it_leans_to() -> None:
    """Six passages with three questions each, all lost: not 18 coins but six."""
    before, after = make([True] * 18), make([False] * 18)
    of_passages = [
        msgspec.structs.replace(
            each,
            records=tuple(
                msgspec.structs.replace(record, cluster=str(place // 3)) for place, record in enumerate(each.records)
            ),
        )
        for each in (before, after)
    ]
    alone, together = compare_items(before, after), compare_items(*of_passages)

    assert alone
    assert together
    assert (together.lost, together.gained) == (alone.lost, alone.gained) == (18, 0)
    assert (alone.p, together.p) == (2 / 2**18, 2 / 2**6)
