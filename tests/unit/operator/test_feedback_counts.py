"""Counting verdicts from what Prometheus answers: exact over restarts, and never a guess."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import at, make_version
from tunegate.api.digest import short
from tunegate.api.feedback import Tally
from tunegate_operator.conditions import Problem
from tunegate_operator.feedback_counts import count, growth

NEW, OLD = make_version("run-1").digest, make_version("base").digest
SINCE = at(0).timestamp()


def series(digest: str, verdict: str, *values: tuple[float, str], pod: str = "a") -> dict[str, Any]:
    labels = {"model_version": short(digest), "verdict": verdict, "pod": pod}
    return {"metric": labels, "values": [[SINCE + time, value] for time, value in values]}


def zeros(*digests: str) -> list[dict[str, Any]]:
    return [series(digest, verdict, (1, "0")) for digest in digests for verdict in ("up", "down")]


@pytest.mark.parametrize(
    ("values", "grown"),
    [
        pytest.param([(10, 0), (20, 3), (30, 5)], 5, id="new since then: all of it counts"),
        pytest.param([(-10, 7), (10, 7), (20, 9)], 2, id="there before: only what came since"),
        pytest.param([(10, 4), (20, 1), (30, 2)], 6, id="a restart begins at 0 again"),
        pytest.param([(-10, 7), (20, 3)], 3, id="a restart across the beginning"),
        pytest.param([(-20, 1), (-10, 7)], 0, id="nothing since"),
        pytest.param([], 0, id="no samples"),
    ],
)
def test_growth_counts_what_came_since_the_beginning(values: list[tuple[float, float]], grown: float) -> None:
    assert growth([(SINCE + time, value) for time, value in values], SINCE) == grown


def test_verdicts_of_all_servers_of_a_version_are_added() -> None:
    found = [
        *zeros(NEW, OLD),
        series(NEW, "down", (5, "2"), pod="b"),
        series(NEW, "down", (5, "3"), pod="c"),
        series(OLD, "up", (5, "4")),
    ]
    assert count(found, [NEW, OLD], at(0)) == {NEW: Tally(down=5), OLD: Tally(up=4)}


@pytest.mark.parametrize(
    "found",
    [
        pytest.param([], id="empty"),
        pytest.param(zeros(NEW), id="no series of the stable"),
        pytest.param(zeros(OLD), id="no series of the candidate"),
        pytest.param([*zeros(NEW, OLD), series(NEW, "down", (5, "NaN"))], id="not a number"),
        pytest.param([*zeros(NEW, OLD), series(NEW, "up", (5, "+Inf"))], id="infinite"),
    ],
)
def test_counts_that_are_missing_are_a_problem_and_never_zero(found: list[dict[str, Any]]) -> None:
    problem = count(found, [NEW, OLD], at(0))
    assert isinstance(problem, Problem)
    assert problem.reason == "NoFeedbackCounts"
    assert "PodMonitor" in problem.message
