from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.builders import at, make_version
from tunegate.api.feedback import Tally
from tunegate.api.policy import CanaryStep, FeedbackGuard, PromotionPolicy
from tunegate.api.promotion import Phase, Promotion, PromotionStatus, Transition
from tunegate.promotion.analysis import compare
from tunegate.promotion.near import EVIDENCE_FACTOR, is_near, says_worse
from tunegate.promotion.snapshot import Snapshot

BASE, CANDIDATE = make_version("base", step=0), make_version("run-1")
GUARD = FeedbackGuard(alpha=0.05, margin=0.1, min_verdicts=5)
STABLE = Tally(up=160, down=40)


def seen(candidate: Tally | None, phase: Phase = "Paused", min_verdicts: int = 1000) -> Snapshot:
    policy = PromotionPolicy(
        model="shop",
        initial_version=BASE.uri,
        suites=("quality",),
        gates=(),
        steps=(CanaryStep(weight=10, min_verdicts=min_verdicts), CanaryStep(weight=50, min_verdicts=2000)),
        feedback=GUARD,
    )
    history = (Transition(phase=phase, time=at(0), reason="", message=""),)
    status = PromotionStatus(phase=phase, stable=BASE, weight=10, canary_started=at(0), step=0, history=history)
    promotion = Promotion(name="shop-run-1", created=at(0), candidate=CANDIDATE, status=status)
    tallies = None if candidate is None else {CANDIDATE.digest: {0: candidate}, BASE.digest: {0: STABLE}}
    return Snapshot(policy, BASE, promotions=(promotion,), tallies=tallies)


@pytest.mark.parametrize("kind", ["worse", "not worse"])
def test_a_conclusion_is_near_before_it_is_there(kind: str) -> None:
    """Vote by vote: near at a quarter of the evidence, and each conclusion was near before."""
    was_near = False
    for count in range(1, 400):
        candidate = Tally(down=count // 2, up=count - count // 2) if kind == "worse" else Tally(up=count)
        found = compare({0: candidate}, {0: STABLE}, GUARD, [10, 50])
        strongest = max(found.evidence_worse, found.evidence_not_worse)
        snapshot = seen(candidate)
        assert is_near(snapshot, at(1)) == (strongest >= found.threshold / EVIDENCE_FACTOR)
        if found.outcome != "Inconclusive":
            assert was_near
            assert says_worse(snapshot, at(1)) == (kind == "worse")
            return
        was_near = was_near or is_near(snapshot, at(1))
    pytest.fail("never decided")


def test_the_end_of_a_step_is_near_at_four_fifths_of_its_verdicts() -> None:
    assert not is_near(seen(Tally(up=31, down=8), min_verdicts=50), at(1))
    assert is_near(seen(Tally(up=32, down=8), min_verdicts=50), at(1))
    assert is_near(seen(Tally(), min_verdicts=0), at(1))


@pytest.mark.parametrize("phase", ["Promoting", "Baking"])
def test_what_ends_by_the_clock_is_always_near(phase: Phase) -> None:
    assert is_near(seen(Tally(up=1), phase), at(1))


def test_nothing_is_near_without_counts_or_without_a_canary() -> None:
    assert not is_near(seen(None), at(1))
    assert not is_near(replace(seen(Tally(down=200)), promotions=()), at(1))
    assert not says_worse(seen(None), at(1) + timedelta(days=1))
