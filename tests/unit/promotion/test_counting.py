"""Whose verdicts are counted, and since when: the one rule of both platforms."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.builders import at, make_policy, make_version
from tunegate.api.promotion import Abort, Decision, Phase, Promotion, PromotionStatus
from tunegate.promotion.counting import Counted, counted, shown
from tunegate.promotion.snapshot import Snapshot

BASE, FIRST, SECOND = make_version("base"), make_version("run-1", created=1), make_version("run-2", created=2)


def make_promotion(phase: Phase = "Paused", **status: Any) -> Promotion:
    fields: dict[str, Any] = {"stable": BASE, "canary_started": at(5)} | status
    return Promotion(name="second", created=at(0), candidate=SECOND, status=PromotionStatus(phase=phase, **fields))


def make_snapshot(*promotions: Promotion, modified: str = "") -> Snapshot:
    return Snapshot(make_policy(), BASE, promotions=promotions, modified=modified)


@pytest.mark.parametrize("phase", ["Progressing", "Paused", "Promoting", "Baking"])
def test_candidate_and_concurrent_stable_are_counted_from_the_start_of_the_canary(phase: Phase) -> None:
    assert counted(make_snapshot(make_promotion(phase))) == Counted("second", SECOND.digest, BASE.digest, at(5))


def test_the_split_is_looked_at_from_when_the_weight_of_the_step_is_observed() -> None:
    found = counted(make_snapshot(make_promotion("Paused", step=1, step_observed=at(9))))
    assert found is not None
    assert (found.step, found.step_since) == (1, at(9))
    baking = counted(make_snapshot(make_promotion("Baking", step=1, step_observed=at(9))))
    assert baking is not None
    assert baking.step_since is None


def test_the_stable_of_a_record_without_one_is_the_version_promoted_last() -> None:
    decision = Decision(outcome="Promoted", reason="Baked", message="", time=at(1))
    status = PromotionStatus(phase="Succeeded", decision=decision)
    promoted = Promotion(name="first", created=at(0), candidate=FIRST, status=status)
    found = counted(make_snapshot(promoted, make_promotion(stable=None)))
    assert found == Counted("second", SECOND.digest, FIRST.digest, at(5))


@pytest.mark.parametrize("phase", ["Pending", "Evaluating", "AwaitingApproval", "RolledBack", "Succeeded"])
def test_nothing_is_counted_while_users_see_no_candidate(phase: Phase) -> None:
    assert counted(make_snapshot(make_promotion(phase))) is None


def test_nothing_is_counted_before_the_first_weight_was_observed() -> None:
    assert counted(make_snapshot(make_promotion(canary_started=None))) is None


def test_nothing_is_counted_once_the_traffic_goes_back() -> None:
    assert counted(make_snapshot(make_promotion("RollingBack"))) is None


def test_nothing_is_counted_after_a_person_said_stop() -> None:
    aborted = msgspec.structs.replace(make_promotion(), abort=Abort(actor="ann"))
    assert counted(make_snapshot(aborted)) is None


def test_nothing_is_counted_once_a_person_changed_the_traffic_by_hand() -> None:
    assert counted(make_snapshot(make_promotion(), modified="ann changed spec.rules")) is None


def test_the_promotion_users_see_is_found_among_all() -> None:
    seen = make_promotion("RollingBack")
    assert shown([make_promotion("Rejected"), seen]) == seen
    assert shown([make_promotion("Pending")]) is None
