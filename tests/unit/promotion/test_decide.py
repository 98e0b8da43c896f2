"""Every transition of a promotion, and what missing data does to it.

`World` is the smallest thing that can hold a plan: it keeps records as the platforms do and lets a test say what the
cluster shows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import pytest

from tests.builders import at, make_evaluation, make_policy, make_version
from tunegate.api.feedback import Tally
from tunegate.api.policy import CanaryStep, FeedbackGuard, Gate, PromotionPolicy
from tunegate.api.promotion import TERMINAL, Abort, Approval, Phase, Promotion, PromotionStatus
from tunegate.api.traffic import step_label
from tunegate.api.versions import ModelVersion
from tunegate.promotion.counting import stable_version
from tunegate.promotion.decide import decide
from tunegate.promotion.pairs import wanted_pairs
from tunegate.promotion.snapshot import EvaluationState, Plan, ServerState, Snapshot
from tunegate.statistics.paired import Difference

BASE = make_version("base", model="base", step=0)
GOOD, BAD, SAME = Tally(up=38, down=2), Tally(up=4, down=36), Tally(up=20, down=20)


@dataclass
class World:
    """What a test sees and says. `follow_*` make the cluster do at once what the plan wishes."""

    policy: PromotionPolicy = field(default_factory=make_policy)
    seen: Snapshot = field(init=False)
    now: float = 0
    follow_servers: bool = True
    follow_weights: bool = True
    plan: Plan = field(default_factory=Plan)

    def __post_init__(self) -> None:
        ready = {BASE.digest: ServerState(ready=True)}
        self.seen = Snapshot(self.policy, BASE, servers=ready, weights={BASE.digest: 100}, tallies={})

    def see(self, **changes: Any) -> World:
        self.seen = replace(self.seen, **changes)
        return self

    def publish(self, version: ModelVersion, score: float | None = 0.9) -> World:
        self.see(versions=(*(self.seen.versions or ()), version))
        return self if score is None else self.evaluate(version, score=score)

    def evaluate(self, version: ModelVersion, **metrics: float | None) -> World:
        state = EvaluationState(make_evaluation(version, **metrics))
        return self.see(evaluations={**self.seen.evaluations, (version.digest, "quality"): state})

    def vote(self, version: ModelVersion, tally: Tally, stable: Tally = GOOD) -> World:
        return self.see(tallies={version.digest: {0: tally}, stable_version(self.seen).digest: {0: stable}})

    def step(self, times: int = 1, seconds: float = 1) -> World:
        for _ in range(times):
            self.now += seconds
            self.plan = decide(self.seen, at(self.now))
            kept = tuple(
                msgspec.structs.replace(old, status=self.plan.statuses.get(old.name, old.status))
                for old in self.seen.promotions
            )
            self.see(promotions=(*kept, *self.plan.create))
            if self.follow_servers:
                self.see(servers={v.digest: ServerState(ready=True) for v in self.plan.servers})
            if self.follow_weights:
                self.see(weights=dict(self.plan.weights))
        return self

    def until(self, phase: Phase, limit: int = 30) -> World:
        for _ in range(limit):
            if self.seen.promotions and self.last.status.phase == phase:
                return self
            self.step()
        raise AssertionError(f"never {phase}: {self.last.status}")

    @property
    def last(self) -> Promotion:
        return self.seen.promotions[-1]

    def say(self, **words: Any) -> World:
        return self.see(promotions=(*self.seen.promotions[:-1], msgspec.structs.replace(self.last, **words)))

    def phases(self) -> list[str]:
        return [step.phase for step in self.last.status.history]


@pytest.fixture
def candidate() -> ModelVersion:
    return make_version("run-1", created=1)


@pytest.fixture
def world(candidate: ModelVersion) -> World:
    return World().publish(candidate)


def test_a_good_candidate_is_promoted_step_by_step(world: World, candidate: ModelVersion) -> None:
    world.vote(candidate, GOOD).until("Succeeded", limit=100)
    assert world.phases() == [
        "Verifying",
        "Evaluating",
        "Progressing",
        "Paused",
        "Progressing",
        "Paused",
        "Promoting",
        "Baking",
        "Succeeded",
    ]
    assert stable_version(world.seen) == candidate
    assert world.step().plan.weights == {candidate.digest: 100}
    assert [version.digest for version in world.step().plan.servers] == [candidate.digest]


def test_nothing_happens_twice_after_the_end(world: World, candidate: ModelVersion) -> None:
    world.vote(candidate, GOOD).until("Succeeded", limit=100)
    record = world.last
    world.step(20)
    assert world.seen.promotions == (record,)
    assert not world.plan.statuses
    assert not world.plan.events


def test_a_candidate_below_a_gate_is_rejected_and_never_shown(candidate: ModelVersion) -> None:
    world = World().publish(candidate, score=0.2).until("Rejected")
    assert world.last.status.decision is not None
    assert world.last.status.decision.reason == "GateFailed"
    assert "0.2" in world.last.status.decision.message
    assert world.plan.weights == {BASE.digest: 100}
    assert world.step(5).seen.promotions[0].status.phase == "Rejected"


def test_a_rejected_digest_is_not_tried_again_under_another_name(candidate: ModelVersion) -> None:
    world = World().publish(candidate, score=0.2).until("Rejected")
    again = msgspec.structs.replace(make_version("run-2", created=50), digest=candidate.digest)
    world.publish(again, score=0.9).step(10)
    assert len(world.seen.promotions) == 1


@pytest.mark.parametrize(
    "metrics",
    [
        pytest.param({}, id="no-such-metric"),
        pytest.param({"score": None}, id="none"),
        pytest.param({"score": math.nan}, id="nan"),
        pytest.param({"score": math.inf}, id="inf"),
    ],
)
def test_a_gate_without_its_number_fails_and_does_not_pass(candidate: ModelVersion, metrics: dict[str, float]) -> None:
    world = World().publish(candidate, score=None).evaluate(candidate, **metrics).until("Failed")
    assert world.last.status.decision is not None
    assert world.last.status.decision.reason == "GateUndecided"
    assert "Progressing" not in world.phases()


def test_a_regression_gate_waits_for_the_stable_and_compares(candidate: ModelVersion) -> None:
    gate = Gate(suite="quality", metric="score", max_regression=0.05)
    world = World(make_policy(gates=(gate,))).publish(candidate, score=0.6).step(10)
    assert world.last.status.phase == "Evaluating"
    assert (BASE, "quality") in [(job.version, job.suite) for job in world.plan.evaluations]
    world.evaluate(BASE, score=0.9).until("Rejected")
    assert world.last.status.gates[0].stable == 0.9


def test_a_gate_on_pairs_waits_until_the_answers_are_known(candidate: ModelVersion) -> None:
    gate = Gate(suite="quality", metric="score", max_regression=0.05, basis="Paired")
    world = World(make_policy(gates=(gate,))).publish(candidate).evaluate(BASE, score=0.92).until("Evaluating").step()
    assert world.last.status.waiting == "waits until the store tells the answers of both versions to quality"
    (pair,) = wanted_pairs(world.seen)
    assert (pair.stable.digest, pair.candidate.digest) == (BASE.digest, candidate.digest)

    world.see(differences={pair: Difference(n=100, up=1, down=3, value=-0.02, low=-0.06, high=0.02)}).step()

    assert world.last.status.decision
    assert world.last.status.decision.reason == "GateFailed"
    assert "1 better, 3 worse of 100" in world.last.status.decision.message
    assert not list(wanted_pairs(world.seen))


def test_evaluation_that_fails_too_often_ends_in_failed(candidate: ModelVersion) -> None:
    world = World().publish(candidate, score=None).until("Evaluating")
    assert next(job.version for job in world.plan.evaluations) == candidate
    world.see(evaluations={(candidate.digest, "quality"): EvaluationState(failures=1, message="killed")}).step()
    assert world.last.status.phase == "Evaluating"
    world.see(evaluations={(candidate.digest, "quality"): EvaluationState(failures=2, message="killed")}).step()
    assert world.last.status.phase == "Failed"
    assert "killed" in world.last.status.decision.message  # type: ignore[union-attr]
    assert not [job for job in world.plan.evaluations if job.version == candidate]


def test_evaluation_that_never_ends_times_out(candidate: ModelVersion) -> None:
    world = World().publish(candidate, score=None).until("Evaluating").step(1, seconds=101)
    assert world.last.status.decision.reason == "EvaluationTimeout"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({"versions": ()}, "VersionMissing", id="gone"),
        pytest.param({"versions": "changed"}, "DigestMismatch", id="other-bytes"),
    ],
)
def test_a_version_that_changed_in_the_store_is_not_evaluated(
    world: World, candidate: ModelVersion, change: dict[str, Any], reason: str
) -> None:
    world.until("Verifying")
    if change["versions"] == "changed":
        change = {"versions": (msgspec.structs.replace(candidate, digest="sha256:" + "0" * 64),)}
    world.see(**change).step()
    assert world.last.status.phase == "Failed"
    assert world.last.status.decision.reason == reason  # type: ignore[union-attr]


def test_manual_approval_waits_for_a_person(candidate: ModelVersion) -> None:
    world = World(make_policy(approval="Manual")).publish(candidate).until("AwaitingApproval").step(5)
    assert world.last.status.phase == "AwaitingApproval"
    assert world.plan.weights == {BASE.digest: 100}
    world.say(approval=Approval(verdict="Approved", actor="an owner")).step()
    assert world.last.status.phase == "Progressing"


def test_a_person_may_reject(candidate: ModelVersion) -> None:
    world = World(make_policy(approval="Manual")).publish(candidate).until("AwaitingApproval")
    world.say(approval=Approval(verdict="Rejected", actor="an owner", message="tone")).step()
    assert world.last.status.phase == "Rejected"
    assert world.last.status.decision.actor == "an owner"  # type: ignore[union-attr]


def test_no_traffic_before_the_candidate_is_ready(world: World, candidate: ModelVersion) -> None:
    world.follow_servers = False
    world.until("Progressing").step(5)
    assert candidate in world.plan.servers
    assert world.plan.weights == {BASE.digest: 100}
    assert world.last.status.canary_started is None


def test_the_clock_starts_at_the_observed_weight(world: World, candidate: ModelVersion) -> None:
    world.follow_weights = False
    world.vote(candidate, GOOD).until("Progressing").step(20)
    assert world.last.status.weight == 0
    assert world.last.status.step_observed is None
    world.see(weights={BASE.digest: 90, candidate.digest: 10}).step()
    assert world.last.status.weight == 10
    assert world.last.status.canary_started == at(world.now)


def test_a_step_is_named_for_as_long_as_its_candidate_has_traffic(world: World, candidate: ModelVersion) -> None:
    world.vote(candidate, GOOD)
    shares: dict[str, set[int]] = {}
    while not world.seen.promotions or world.last.status.phase != "Succeeded":
        world.step()
        shares.setdefault(world.plan.step, set()).add(world.plan.weights.get(candidate.digest, 0))
    assert shares.pop("") == {0, 100}, "before, and when it is the stable version"
    # At the very end, when it is decided, the last step's share grows to all.
    expected = ({10}, {50}, {95, 100})
    assert shares == {step_label(world.last.name, index): share for index, share in enumerate(expected)}


def test_no_step_is_named_for_a_candidate_that_is_taken_back(world: World, candidate: ModelVersion) -> None:
    world.until("Paused").vote(candidate, BAD).step()
    assert (world.last.status.phase, world.plan.step) == ("RollingBack", "")


def test_a_share_that_is_held_back_is_one_of_the_step_before(world: World, candidate: ModelVersion) -> None:
    world.until("Paused").vote(candidate, GOOD)
    world.follow_servers = False
    world.see(servers={BASE.digest: ServerState(ready=True), candidate.digest: ServerState()})
    world.step(10)
    assert world.last.status.step == 1
    assert world.plan.weights == {BASE.digest: 90, candidate.digest: 10}
    assert world.plan.step == step_label(world.last.name, 0)


def test_a_weight_someone_moved_stops_the_clock_and_is_shown_as_seen(world: World, candidate: ModelVersion) -> None:
    world.until("Paused")
    world.follow_weights = False
    world.see(weights={BASE.digest: 70, candidate.digest: 30}).step()
    assert world.last.status.weight == 30
    assert world.last.status.step_observed is None
    assert world.plan.weights == {BASE.digest: 90, candidate.digest: 10}


def test_a_disliked_candidate_is_rolled_back_with_the_counts(world: World, candidate: ModelVersion) -> None:
    world.until("Paused").vote(candidate, BAD).step()
    assert world.last.status.phase == "RollingBack"
    assert world.plan.weights == {BASE.digest: 100}
    world.until("RolledBack")
    decision = world.last.status.decision
    assert decision is not None
    assert decision.reason == "FeedbackWorse"
    assert world.last.status.comparison.candidate == BAD  # type: ignore[union-attr]
    assert stable_version(world.seen) == BASE


def test_rolled_back_only_when_the_route_shows_it(world: World, candidate: ModelVersion) -> None:
    world.until("Paused").vote(candidate, BAD)
    world.follow_weights = False
    world.step(10)
    assert world.last.status.phase == "RollingBack"
    assert candidate in world.plan.servers
    world.see(weights=None).step(3)
    assert world.last.status.phase == "RollingBack"
    world.see(weights={BASE.digest: 100}).step()
    assert world.last.status.phase == "RolledBack"


def test_rollback_needs_neither_feedback_nor_store_nor_evaluator(world: World, candidate: ModelVersion) -> None:
    world.until("Paused").vote(candidate, BAD).step()
    world.see(tallies=None, versions=(), evaluations={}).until("RolledBack")


@pytest.mark.parametrize(
    "tallies", [pytest.param(None, id="unreadable"), pytest.param({}, id="empty"), pytest.param("few", id="too-few")]
)
def test_without_enough_verdicts_nothing_grows(world: World, candidate: ModelVersion, tallies: Any) -> None:
    few = {candidate.digest: {0: Tally(up=2)}, BASE.digest: {0: GOOD}}
    world.until("Paused").see(tallies=few if tallies == "few" else tallies).step(50)
    assert world.last.status.phase == "Paused"
    assert world.last.status.step == 0
    assert world.plan.weights == {BASE.digest: 90, candidate.digest: 10}


def test_a_split_that_was_not_asked_for_ends_as_failed_whatever_the_verdicts_say(
    world: World, candidate: ModelVersion
) -> None:
    world.until("Paused").vote(candidate, BAD).see(splits=((330, 670),)).step()
    assert world.plan.weights == {BASE.digest: 100}
    world.until("Failed")
    decision = world.last.status.decision
    assert decision is not None
    assert (decision.outcome, decision.reason) == ("Failed", "SampleRatioMismatch")
    assert "330 of 1000 questions" in decision.message


@pytest.mark.parametrize("phase", ["Paused", "Baking"])
def test_a_candidate_in_whose_name_other_weights_answered_is_failed_and_never_worse(
    world: World, candidate: ModelVersion, phase: Phase
) -> None:
    world.vote(candidate, GOOD).until(phase).vote(candidate, BAD).see(struck={candidate.digest: "other weights"}).step()
    assert world.plan.weights == {BASE.digest: 100}
    world.until("Failed")
    decision = world.last.status.decision
    assert decision is not None
    assert (decision.outcome, decision.reason, decision.message) == ("Failed", "WrongWeights", "other weights")


LEANING, CALM = Tally(up=10, down=10), Tally(up=140, down=40)


def test_a_candidate_that_looks_worse_gets_no_more_and_the_status_says_why(
    world: World, candidate: ModelVersion
) -> None:
    world.until("Paused").vote(candidate, LEANING, stable=CALM).step(50)
    status = world.last.status
    assert (status.phase, status.step, status.weight) == ("Paused", 0, 10)
    assert status.comparison is not None
    assert 1 < status.comparison.evidence_worse < 20
    assert status.waiting.startswith("stays at 10 %, until 2026-01-01 00:16 UTC at the latest: 20 of 3 verdicts, which")
    assert "10 of 20 answers disliked against 40 of 180 of the stable" in status.waiting
    world.step(1, seconds=1001)
    assert world.last.status.decision.reason == "DeadlineExceeded"  # type: ignore[union-attr]


def test_a_step_goes_on_once_the_verdicts_lean_no_more(world: World, candidate: ModelVersion) -> None:
    world.until("Paused").vote(candidate, LEANING, stable=CALM).step(50)
    world.vote(candidate, Tally(up=40, down=9), stable=CALM).step(2)
    assert (world.last.status.step, world.last.status.waiting) == (1, "")


def test_a_policy_may_let_a_leaning_candidate_go_on(candidate: ModelVersion) -> None:
    guard = FeedbackGuard(margin=0.2, min_verdicts=5, max_lean=20)
    world = World(make_policy(feedback=guard)).publish(candidate).until("Paused")
    world.vote(candidate, LEANING, stable=CALM).step(50)
    assert world.last.status.step == 1


def test_a_lean_within_the_margin_holds_nobody_up(world: World, candidate: ModelVersion) -> None:
    """Surely a little worse, and surely by less than the policy's margin."""
    within = Tally(up=3500, down=1500)
    world.until("Paused").vote(candidate, within, stable=Tally(up=3750, down=1250)).step(20)
    assert world.last.status.comparison.outcome == "NotWorse"  # type: ignore[union-attr]
    assert world.last.status.step == 1


@pytest.mark.parametrize(
    ("tally", "said"),
    [(Tally(up=2), "2 of 3 verdicts"), (GOOD, "it lasts until 00:00:"), (None, "the feedback counts")],
    ids=["verdicts", "time", "counts"],
)
def test_a_step_says_what_it_waits_for(world: World, candidate: ModelVersion, tally: Tally | None, said: str) -> None:
    world.until("Paused")
    world.see(tallies=None) if tally is None else world.vote(candidate, tally)
    world.step(2 if tally == GOOD else 20)
    assert said in world.last.status.waiting


def test_an_inconclusive_comparison_waits_before_full_traffic_and_says_for_how_many(
    world: World, candidate: ModelVersion
) -> None:
    world.until("Paused").vote(candidate, SAME, stable=SAME).step(50)
    assert world.last.status.phase == "Paused"
    assert world.last.status.weight == 50
    assert world.last.status.comparison.answers_needed  # type: ignore[union-attr]


def test_an_undecided_promotion_fails_at_its_deadline_and_the_stable_keeps_the_traffic(
    world: World, candidate: ModelVersion
) -> None:
    world.until("Paused").vote(candidate, SAME, stable=SAME).step(20).step(1, seconds=1001)
    assert world.last.status.phase == "RollingBack"
    world.until("Failed")
    assert world.last.status.decision.reason == "DeadlineExceeded"  # type: ignore[union-attr]
    assert world.plan.weights == {BASE.digest: 100}


def test_the_pause_of_a_step_is_waited_for(world: World, candidate: ModelVersion) -> None:
    world.vote(candidate, GOOD).until("Paused").step(3)
    assert world.last.status.step == 0
    world.step(3)
    assert world.last.status.step == 1


def test_a_canary_that_never_becomes_ready_fails(world: World, candidate: ModelVersion) -> None:
    world.follow_servers = False
    world.until("Progressing")
    world.see(servers={**world.seen.servers, candidate.digest: ServerState(failed=True, message="out of memory")})
    world.until("Failed")
    assert world.last.status.decision.reason == "CanaryNotReady"  # type: ignore[union-attr]
    assert "out of memory" in world.last.status.decision.message  # type: ignore[union-attr]


def test_a_candidate_that_is_down_for_a_moment_gets_no_more_traffic_than_it_had(
    world: World, candidate: ModelVersion
) -> None:
    world.until("Paused")
    world.follow_servers = False
    world.see(servers={BASE.digest: ServerState(ready=True), candidate.digest: ServerState()}).step(3)
    assert world.plan.weights == {BASE.digest: 90, candidate.digest: 10}
    world.see(weights={BASE.digest: 100}).step()
    assert world.plan.weights == {BASE.digest: 100}


def test_harm_seen_while_baking_rolls_back_a_promoted_candidate(world: World, candidate: ModelVersion) -> None:
    world.vote(candidate, GOOD).until("Baking")
    assert BASE in world.plan.servers
    world.vote(candidate, BAD).until("RolledBack")
    assert stable_version(world.seen) == BASE
    assert world.plan.weights == {BASE.digest: 100}


def test_the_stable_keeps_a_small_share_while_the_candidate_bakes_and_none_after(
    world: World, candidate: ModelVersion
) -> None:
    world.vote(candidate, GOOD).until("Baking")
    assert (world.plan.weights, world.last.status.weight) == ({BASE.digest: 5, candidate.digest: 95}, 95)
    world.follow_weights = False
    world.step(100)
    assert world.last.status.phase == "Baking"
    assert world.last.status.baked == at(world.now - 100 + 60)
    assert world.last.status.decision is None
    assert world.plan.weights == {BASE.digest: 0, candidate.digest: 100}
    world.see(weights={candidate.digest: 100}).step()
    assert world.last.status.phase == "Succeeded"
    assert "60 s at 95 % without a sign of harm" in world.last.status.decision.message  # type: ignore[union-attr]


def test_a_stable_that_is_away_keeps_no_share_while_the_candidate_bakes(world: World, candidate: ModelVersion) -> None:
    world.vote(candidate, GOOD).until("Promoting")
    world.follow_servers = False
    ready = ServerState(ready=True)
    world.see(servers={candidate.digest: ready, BASE.digest: ServerState(failed=True)}).until("Baking")
    assert world.step().plan.weights == {BASE.digest: 0, candidate.digest: 100}
    world.see(servers={candidate.digest: ready, BASE.digest: ready}).step()
    assert world.plan.weights == {BASE.digest: 5, candidate.digest: 95}
    world.see(servers={candidate.digest: ready}).until("Succeeded", limit=100)
    assert world.plan.weights == {candidate.digest: 100}


@pytest.mark.parametrize("weights", [None, {BASE.digest: 90}], ids=["route unreadable", "weight not taken"])
def test_a_worse_candidate_is_taken_back_also_while_its_next_weight_is_not_observed(
    world: World, candidate: ModelVersion, weights: dict[str, int] | None
) -> None:
    world.vote(candidate, GOOD).until("Paused").until("Progressing")
    world.follow_weights = False
    seen = None if weights is None else {**weights, candidate.digest: 10}
    world.vote(candidate, BAD).see(weights=seen).step()
    assert world.last.status.phase == "RollingBack"
    assert world.plan.weights == {BASE.digest: 100}


def test_only_time_with_its_share_counts_as_baking(world: World, candidate: ModelVersion) -> None:
    world.vote(candidate, GOOD).until("Baking")
    world.follow_servers = False
    ready = {BASE.digest: ServerState(ready=True), candidate.digest: ServerState(ready=True)}
    world.see(servers={**ready, candidate.digest: ServerState()}, weights={BASE.digest: 100}).step(80)
    assert (world.last.status.weight, world.last.status.baked) == (0, None)
    world.see(servers=ready).step(59)
    assert (world.last.status.weight, world.last.status.baked) == (95, None)
    world.until("Succeeded")


def test_a_candidate_bakes_on_while_nobody_knows_what_users_say(world: World, candidate: ModelVersion) -> None:
    tallies = world.vote(candidate, GOOD).until("Baking").seen.tallies
    world.see(tallies=None).step(80)
    assert (world.last.status.phase, world.last.status.weight) == ("Baking", 95)
    assert world.last.status.waiting.startswith("bakes on: inconclusive: the feedback counts of the candidate")
    world.see(tallies=tallies).until("Succeeded")


@pytest.mark.parametrize(("kept", "last", "share"), [(0, 50, 100), (20, 50, 80), (50, 90, 90), (5, 98, 98)], ids=str)
def test_a_candidate_bakes_with_what_the_policy_leaves_it_and_never_with_less(
    candidate: ModelVersion, kept: int, last: int, share: int
) -> None:
    steps = (CanaryStep(weight=10, min_verdicts=3), CanaryStep(weight=last, min_verdicts=10))
    world = World(make_policy(steps=steps, baking_stable_weight=kept)).publish(candidate)
    world.vote(candidate, GOOD).until("Baking")
    assert world.last.status.weight == share
    assert world.until("Succeeded", limit=100).plan.weights == {candidate.digest: 100}


def test_a_mood_that_changes_with_the_last_step_rolls_nobody_back(world: World, candidate: ModelVersion) -> None:
    def verdicts(*downs: tuple[int, int]) -> dict[int, Tally]:
        return {step: Tally(up=n - down, down=down) for step, (down, n) in enumerate(downs)}

    world.vote(candidate, GOOD).until("Baking")
    ours, theirs = verdicts((2, 20), (20, 200), (300, 1000)), verdicts((18, 180), (20, 200), (16, 53))
    world.see(tallies={candidate.digest: ours, BASE.digest: theirs}).until("Succeeded", limit=100)


def test_a_server_that_dies_while_baking_rolls_back(world: World, candidate: ModelVersion) -> None:
    world.vote(candidate, GOOD).until("Baking")
    world.follow_servers = False
    world.see(servers={BASE.digest: ServerState(ready=True), candidate.digest: ServerState(failed=True)})
    world.until("RolledBack")
    assert world.last.status.decision.reason == "CandidateDown"  # type: ignore[union-attr]


@pytest.mark.parametrize("phase", ["Pending", "Evaluating", "Progressing", "Paused", "Baking"])
def test_a_person_may_abort_in_any_phase(candidate: ModelVersion, phase: Phase) -> None:
    world = World().publish(candidate, score=None).step()
    if phase not in ("Pending", "Evaluating"):
        world.evaluate(candidate, score=0.9).vote(candidate, GOOD)
    world.until(phase, limit=60).say(abort=Abort(actor="an owner")).until("Aborted")
    assert world.last.status.decision.actor == "an owner"  # type: ignore[union-attr]
    assert world.plan.weights == {BASE.digest: 100}


def test_the_newest_candidate_wins_while_none_is_shown(candidate: ModelVersion) -> None:
    newer = make_version("run-2", created=2)
    world = World().publish(candidate, score=None).until("Evaluating").publish(newer).step(2)
    assert [promotion.status.phase for promotion in world.seen.promotions] == ["Superseded", "Verifying"]


def test_one_candidate_at_a_time_is_shown(world: World, candidate: ModelVersion) -> None:
    newer = make_version("run-2", created=2)
    world.until("Paused").publish(newer).step(10)
    assert [promotion.status.phase for promotion in world.seen.promotions] == ["Paused", "Pending"]
    world.vote(candidate, GOOD)
    while world.seen.promotions[0].status.phase not in TERMINAL:
        world.step()
    world.step(3)
    assert world.last.status.stable == candidate


def test_after_a_rollback_users_are_left_in_peace(candidate: ModelVersion) -> None:
    world = World(make_policy(hold_seconds=100)).publish(candidate).until("Paused").vote(candidate, BAD)
    world.until("RolledBack").publish(make_version("run-2", created=50)).step(20)
    assert world.last.status.phase == "Pending"
    world.step(1, seconds=100).step()
    assert world.last.status.phase == "Evaluating"


@pytest.mark.parametrize("phase", ["Pending", "Progressing", "Paused", "RollingBack"])
def test_what_is_stable_already_is_not_promoted_again(world: World, candidate: ModelVersion, phase: Phase) -> None:
    """It would wait for a share besides itself, and for ever for the traffic to leave it."""
    world.vote(candidate, GOOD).until("Succeeded", limit=100)
    status = msgspec.structs.replace(PromotionStatus(), phase=phase, stable=candidate)
    again = Promotion(name="again", created=at(world.now), candidate=candidate, status=status)
    world.see(promotions=(*world.seen.promotions, again)).step()
    assert world.last.status.decision is not None
    assert (world.last.status.phase, world.last.status.decision.reason) == ("Superseded", "AlreadyStable")
    assert world.plan.weights == {candidate.digest: 100}


def test_suspend_starts_nothing_new(candidate: ModelVersion) -> None:
    world = World(make_policy(suspend=True)).publish(candidate).step(5)
    assert not world.seen.promotions
    assert world.plan.weights == {BASE.digest: 100}


def test_without_canary_steps_traffic_switches_at_once_and_bakes(candidate: ModelVersion) -> None:
    world = World(make_policy(steps=(CanaryStep(weight=100),))).publish(candidate).until("Succeeded", limit=100)
    assert world.phases()[2:5] == ["Promoting", "Baking", "Succeeded"]


def test_every_checkpoint_is_evaluated_and_waiting_ones_come_first(candidate: ModelVersion) -> None:
    older = make_version("run-0", created=0.5)
    world = World().publish(older, score=None).publish(candidate, score=None).until("Evaluating")
    assert [job.version for job in world.plan.evaluations] == [candidate, BASE, older]


def test_each_transition_makes_one_event(world: World, candidate: ModelVersion) -> None:
    world.vote(candidate, GOOD)
    events = []
    while not world.seen.promotions or world.last.status.phase not in TERMINAL:
        events += world.step().plan.events
    assert [event.reason for event in events] == [step.reason for step in world.last.status.history]


def test_the_same_snapshot_gives_the_same_plan(world: World, candidate: ModelVersion) -> None:
    world.vote(candidate, GOOD).until("Paused")
    assert decide(world.seen, at(world.now)) == decide(world.seen, at(world.now))


def test_a_platform_that_was_away_goes_on_where_it_was(world: World, candidate: ModelVersion) -> None:
    """All it needs is in the records: phases come from status, not from memory."""
    world.until("Paused")
    copied = msgspec.json.decode(msgspec.json.encode(world.last), type=Promotion)
    world.see(promotions=(copied,), servers={}, weights=None).step()
    assert world.last.status.phase == "Progressing"
    assert set(world.plan.servers) == {BASE, candidate}


def test_an_abort_names_who_said_it_and_why(world: World, candidate: ModelVersion) -> None:
    world.until("Paused").say(abort=Abort(actor="ada", message="wrong prices")).until("Aborted")
    assert world.last.status.decision is not None
    assert (world.last.status.decision.actor, world.last.status.decision.message) == ("ada", "wrong prices")
    assert world.seen.weights == {BASE.digest: 100}


def test_a_change_by_hand_ends_the_promotion_and_leaves_the_traffic_as_it_was_set(
    world: World, candidate: ModelVersion
) -> None:
    by_hand = {BASE.digest: 3, candidate.digest: 97}
    world.until("Paused").see(modified="kubectl-edit changed the weights", weights=by_hand).step()
    assert world.last.status.phase == "Failed"
    assert world.last.status.decision is not None
    assert world.last.status.decision.reason == "TargetModified"
    assert world.plan.weights == {}
    assert candidate in world.plan.servers, "it still has traffic"


def test_nothing_new_starts_while_something_is_changed_by_hand(candidate: ModelVersion) -> None:
    world = World().see(modified="somebody changed the route")
    assert world.publish(candidate).step(3).seen.promotions == ()


def test_a_store_that_cannot_be_read_decides_nothing_about_what_it_holds(world: World, candidate: ModelVersion) -> None:
    versions = world.until("Verifying").seen.versions
    assert world.see(versions=None).step(5).last.status.phase == "Verifying"
    assert world.see(versions=versions).until("Paused")


def test_of_finished_runs_only_the_last_checkpoint_is_promoted() -> None:
    world = World(make_policy(candidates="FinishedRuns"))
    first, last = make_version("run-1", created=1, step=10), make_version("run-1", created=2, step=20)
    assert world.publish(first).publish(last).step(2).seen.promotions == ()
    assert world.see(finished_runs=frozenset({"run-1"})).step().last.candidate == last
    assert len(world.seen.promotions) == 1


@pytest.mark.parametrize("weights", [(10,), (100,)])
def test_steps_that_were_removed_during_a_canary_leave_the_last_one_and_the_watch_on_users(
    world: World, candidate: ModelVersion, weights: tuple[int, ...]
) -> None:
    world.vote(candidate, GOOD).until("Paused").until("Progressing").until("Paused")
    assert world.last.status.step == 1
    fewer = tuple(CanaryStep(weight=weight) for weight in weights)
    world.see(policy=make_policy(steps=fewer)).vote(candidate, BAD).until("RolledBack")
    assert world.seen.weights == {BASE.digest: 100}


def test_a_gateway_that_wavers_for_days_does_not_fill_the_record(candidate: ModelVersion) -> None:
    world = World(make_policy(deadline_seconds=1e6)).publish(candidate).until("Paused")
    world.follow_weights = False
    for _ in range(600):
        world.see(weights=None).step()
        world.see(weights={BASE.digest: 90, candidate.digest: 10}).step()
    assert len(world.last.status.history) <= 400
    assert world.last.status.history[0].phase == "Verifying"
    assert len(world.plan.events) == 1, "and each transition is still an event"
    world.follow_weights = True
    world.vote(candidate, GOOD).until("Baking")


@pytest.mark.parametrize("suite", ["tone.people", "tone.pairs"])
def test_people_are_waited_for_beyond_what_a_machine_may_take(candidate: ModelVersion, suite: str) -> None:
    gates = (Gate(suite="quality", metric="score", min=0.5), Gate(suite=suite, metric="score", max_regression=0.1))
    policy = make_policy(suites=("quality", suite), gates=gates)
    world = World(policy).publish(candidate, score=0.9).until("Evaluating").step(2, seconds=150)

    assert world.last.status.phase == "Evaluating"
    assert suite not in {job.suite for job in world.plan.evaluations}
    for version in (candidate, BASE):
        assert f"{suite} on {version.name}" in world.last.status.waiting
    said = EvaluationState(message="2 of 9 items marked, by Li (2); 2 of 9 judgements")
    world.see(evaluations={**world.seen.evaluations, (candidate.digest, suite): said}).step()
    assert f"{suite} on {candidate.name} ({said.message}) and {suite} on {BASE.name}, until" in (
        world.last.status.waiting
    )

    judged = {
        (version.digest, suite): EvaluationState(make_evaluation(version, score=0.9)) for version in (candidate, BASE)
    }
    judged = {key: EvaluationState(msgspec.structs.replace(state.result, suite=suite)) for key, state in judged.items()}
    world.see(evaluations={**world.seen.evaluations, **judged}).step()
    assert world.last.status.phase == "Progressing"
    assert world.last.status.waiting == ""


def test_a_judge_model_is_waited_for_as_the_people_beside_it_are(candidate: ModelVersion) -> None:
    suites = ("tone.judge", "tone.people")
    gates = tuple(Gate(suite=suite, metric="score", min=0.5) for suite in suites)
    world = World(make_policy(suites=suites, gates=gates)).publish(candidate).until("Evaluating").step(2, seconds=150)

    assert not [job for job in world.plan.evaluations if job.suite in suites]
    assert "people to judge tone.people on" in world.last.status.waiting
    assert "the judge model's tone.judge on" in world.last.status.waiting
    assert "tunegate review judge --save" in world.last.status.waiting


def test_people_who_never_come_are_named_at_the_deadline(candidate: ModelVersion) -> None:
    policy = make_policy(suites=("quality", "tone.people"), deadline_seconds=500)
    world = World(policy).publish(candidate, score=0.9).until("Evaluating").step(2, seconds=300)

    decision = world.last.status.decision
    assert decision is not None
    assert decision.reason == "DeadlineExceeded"
    assert "waits for people to judge tone.people on" in decision.message
