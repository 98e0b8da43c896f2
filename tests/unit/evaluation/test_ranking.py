"""Bradley and Terry's strengths, against a table of a textbook."""

from __future__ import annotations

import pytest

from tunegate.evaluation.ranking import strengths

# Agresti, Categorical data analysis, table 10.10: baseball in 1987, who won how often against whom.
TEAMS = ("Milwaukee", "Detroit", "Toronto", "New York", "Boston", "Cleveland", "Baltimore")
WON = [
    [0, 7, 9, 7, 7, 9, 11],
    [6, 0, 7, 5, 11, 9, 9],
    [4, 6, 0, 7, 7, 8, 12],
    [6, 8, 6, 0, 6, 7, 10],
    [6, 2, 6, 7, 0, 7, 12],
    [4, 4, 5, 6, 6, 0, 6],
    [2, 4, 1, 3, 1, 7, 0],
]
PUBLISHED = [1.58, 1.44, 1.29, 1.25, 1.11, 0.68, 0.0]  # Baltimore is set to 0


def table(rows: list[list[float]]) -> dict[tuple[int, int], float]:
    return {(row, column): n for row, cells in enumerate(rows) for column, n in enumerate(cells)}


def test_strengths_are_those_of_the_textbook() -> None:
    found = strengths(table(WON), len(TEAMS))
    assert found is not None
    assert [value - found[-1] for value in found] == pytest.approx(PUBLISHED, abs=0.005)
    assert sum(found) == pytest.approx(0)


def test_ties_as_half_wins_leave_two_equals_equal() -> None:
    assert strengths({(0, 1): 2.5, (1, 0): 2.5}, 2) == pytest.approx([0, 0])


@pytest.mark.parametrize(
    "wins",
    [
        pytest.param({}, id="nobody-met"),
        pytest.param({(0, 1): 3, (1, 2): 3}, id="somebody-never-lost"),
        pytest.param({(0, 1): 3, (1, 0): 3}, id="somebody-never-met-the-others"),
    ],
)
def test_there_is_no_strength_where_it_would_be_infinite(wins: dict[tuple[int, int], float]) -> None:
    assert strengths(wins, 3) is None
