"""What is decided on: Prometheus's counts while nothing is near, then the log's."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.builders import at
from tests.unit.promotion.test_near import BASE, CANDIDATE, seen
from tunegate.api.feedback import Tally
from tunegate_operator.conditions import Problem
from tunegate_operator.feedback_counts import Counts, problems_of, with_counts
from tunegate_operator.feedback_log import QUICK_SECONDS, SLOW_SECONDS, Logged, by_the_log

AWAY = Problem("StoreReadable", "StoreUnreachable", "s3://models can't be reached; check that the store runs.")
STABLE = Tally(up=160, down=40)


def counts(candidate: Tally, *, is_whole: bool = True) -> Counts:
    return Counts({CANDIDATE.digest: {0: candidate}, BASE.digest: {0: STABLE}}, is_whole, splits=((10, 90),))


def decided(quick: Counts, logged: Logged) -> Counts:
    found = by_the_log(seen(None), quick, lambda fresh: logged, at(1))
    assert isinstance(found, Counts)
    return found


def test_while_nothing_is_near_the_store_is_not_asked() -> None:
    def unasked(fresh: float) -> Logged:
        raise AssertionError("the log was read")

    quick = counts(Tally(up=10, down=3))
    assert by_the_log(seen(None), quick, unasked, at(1)) == quick


@pytest.mark.parametrize("candidate", [Tally(down=60), Tally(up=300)], ids=["worse", "not worse"])
def test_what_is_near_is_counted_from_the_log(candidate: Tally) -> None:
    logged = {CANDIDATE.digest: {0: Tally(up=5, down=5)}, BASE.digest: {0: STABLE}}
    found = decided(counts(candidate), logged)
    assert (found.tallies, found.splits) == (logged, ((10, 90),))
    assert problems_of(found) == ()


def test_what_prometheus_has_lost_the_log_has() -> None:
    logged = counts(Tally(up=5, down=5)).tallies
    found = decided(counts(Tally(), is_whole=False), logged)
    assert found.tallies == logged
    assert [problem.reason for problem in problems_of(found)] == ["FeedbackHistoryLost"]


NO_PROMETHEUS = Problem("FeedbackReadable", "PrometheusUnreachable", "Prometheus does not answer; check its URL")
FEW, MANY = Tally(up=5, down=5), Tally(up=5, down=55)


@pytest.mark.parametrize(
    "quick",
    [NO_PROMETHEUS, replace(NO_PROMETHEUS, stops=False), counts(Tally(), is_whole=False)],
    ids=["away", "no series", "its data lost"],
)
@pytest.mark.parametrize(("candidate", "asked"), [(FEW, [SLOW_SECONDS]), (MANY, [SLOW_SECONDS, QUICK_SECONDS])])
def test_without_prometheus_the_log_is_asked_slowly_until_it_says_that_a_decision_is_near(
    quick: Counts | Problem, candidate: Tally, asked: list[float]
) -> None:
    logged, ages = counts(candidate).tallies, list[float]()

    def read_log(fresh: float) -> Logged:
        ages.append(fresh)
        return logged

    found = by_the_log(seen(None), quick, read_log, at(1))
    assert isinstance(found, Counts)
    assert (found.tallies, ages) == (logged, asked)
    assert not any(problem.stops for problem in problems_of(found))


def test_without_prometheus_its_condition_says_who_counts_and_that_the_split_is_not_checked() -> None:
    found = by_the_log(seen(None), NO_PROMETHEUS, lambda fresh: counts(FEW).tallies, at(1))
    assert isinstance(found, Counts)
    (problem,) = problems_of(found)
    assert (problem.reason, found.splits) == ("PrometheusUnreachable", ())
    assert problem.message == (
        "Prometheus does not answer; check its URL; until then verdicts are counted from the log of votes alone, every "
        "30 s while no decision is near, and the split is not checked"
    )


def test_without_both_nothing_is_counted_and_both_are_named() -> None:
    found = by_the_log(seen(None), replace(NO_PROMETHEUS, stops=False), lambda fresh: AWAY, at(1))
    assert isinstance(found, Problem)
    assert (found.reason, found.stops) == ("PrometheusUnreachable", True)
    assert "check its URL; the log of votes can't be read either: s3://models can't be reached" in found.message


def test_without_the_log_nobody_is_promoted_and_the_worse_is_taken_back() -> None:
    good, bad = decided(counts(Tally(up=300)), AWAY), decided(counts(Tally(down=60)), AWAY)
    assert with_counts(seen(None), good).tallies is None
    assert bad.tallies == counts(Tally(down=60)).tallies


@pytest.mark.parametrize("candidate", [Tally(down=60), Tally(up=300)], ids=["worse", "not worse"])
def test_while_the_log_is_being_read_nothing_is_decided(candidate: Tally) -> None:
    found = decided(counts(candidate), None)
    assert (found.tallies, problems_of(found)) == (None, ())


def test_the_condition_says_why_and_what_happens_meanwhile() -> None:
    (problem,) = problems_of(decided(counts(Tally(up=300)), AWAY))
    assert (problem.about, problem.reason, problem.stops) == ("FeedbackReadable", "LogUnreadable", True)
    assert problem.message == (
        "a decision is near, and the log of votes can't be read: s3://models can't be reached; check that the store "
        "runs; until it can, nothing grows and nobody is promoted, and a candidate that Prometheus counts as worse is "
        "taken back"
    )
