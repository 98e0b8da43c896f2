"""Which checkpoint of a run may be promoted, and when its training should stop: by numbers, and never without them."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from tests.builders import at, make_evaluation, make_policy, make_version
from tunegate.api.evaluation import Metric
from tunegate.api.policy import Selection, StopTraining
from tunegate.api.versions import ModelVersion
from tunegate.promotion.decide import decide
from tunegate.promotion.runs import run_choices, training_stops
from tunegate.promotion.snapshot import EvaluationState, ServerState, Snapshot

BASE = make_version("base", model="base", step=0)
BEST = Selection(type="BestOf", suite="quality", metric="score")
FAILED = EvaluationState(failures=2, message="out of memory")


def checkpoints(count: int, run: str = "run-1", after: float = 0) -> list[ModelVersion]:
    return [make_version(run, created=after + number, step=10 * number) for number in range(1, count + 1)]


def scored(
    version: ModelVersion, value: float | None, half: float | None = 0.05, *, up: bool = True, questions: str = "one"
) -> EvaluationState:
    low, high = (None, None) if half is None or value is None else (value - half, value + half)
    metric = Metric(name="score", value=value, low=low, high=high, n=100, higher_is_better=up)
    result = msgspec.structs.replace(make_evaluation(version), metrics=(metric,), suite_digest=questions)
    return EvaluationState(result)


def seen(
    versions: Sequence[ModelVersion],
    states: Sequence[EvaluationState | float | None],
    *,
    stable: EvaluationState | float | None = None,
    finished: Sequence[str] = (),
    **policy: Any,
) -> Snapshot:
    """Each checkpoint with its score, or what else is known of it; None: nothing yet."""
    found = {
        (version.digest, "quality"): scored(version, state) if isinstance(state, float) else state
        for version, state in zip((*versions, BASE), (*states, stable), strict=True)
        if state is not None
    }
    return Snapshot(
        make_policy(**policy),
        BASE,
        versions=tuple(versions),
        finished_runs=frozenset(finished),
        training_runs=frozenset(version.run for version in versions),
        evaluations=found,
        servers={BASE.digest: ServerState(ready=True)},
        weights={BASE.digest: 100},
    )


def created(snapshot: Snapshot) -> list[str]:
    return [promotion.candidate.name.rsplit("-", 1)[1] for promotion in decide(snapshot, at(10)).create]


def message(snapshot: Snapshot) -> str:
    return run_choices(snapshot)[0].message


def test_the_best_checkpoint_of_a_finished_run_is_its_candidate() -> None:
    snapshot = seen(checkpoints(3), [0.6, 0.8, 0.7], finished=["run-1"], selection=BEST, candidates="FinishedRuns")
    assert created(snapshot) == ["20"]
    assert message(snapshot) == "checkpoint-20 has the best quality score of 3: 0.8 (0.75 to 0.85, n=100)"


def test_a_run_that_goes_on_is_evaluated_and_not_chosen_from_before_its_end() -> None:
    snapshot = seen(checkpoints(2), [0.6, None], selection=BEST, candidates="FinishedRuns")
    assert created(snapshot) == []
    assert message(snapshot) == "the run has not ended; its best checkpoint is chosen then"
    assert [job.version.name for job in decide(snapshot, at(10)).evaluations] == [
        BASE.name,
        "shop/run-1/checkpoint-20",
    ]


@pytest.mark.parametrize("candidates", ["EveryCheckpoint", "FinishedRuns"])
def test_checkpoints_are_evaluated_as_they_appear_whatever_may_be_promoted(candidates: str) -> None:
    snapshot = seen(checkpoints(3), [None, None, None], candidates=candidates)
    assert {job.version for job in decide(snapshot, at(10)).evaluations} == {BASE, *checkpoints(3)}


@pytest.mark.parametrize("policy", [{"selection": BEST}, {"stop_training": None}], ids=["best of", "latest"])
def test_where_a_run_is_judged_by_several_in_a_row_they_are_measured_in_their_order(policy: dict[str, Any]) -> None:
    jobs = decide(seen(checkpoints(3), [None, None, None], candidates="FinishedRuns", **policy), at(10)).evaluations
    in_order = checkpoints(3) if policy.get("selection") else checkpoints(3)[::-1]
    assert [job.version for job in jobs] == [BASE, *in_order]


def test_an_evaluation_that_may_still_come_is_waited_for() -> None:
    policy = {"selection": BEST, "candidates": "FinishedRuns"}
    tried = EvaluationState(failures=1, message="killed")
    for missing in (None, tried):
        snapshot = seen(checkpoints(3), [0.6, missing, 0.9], finished=["run-1"], **policy)
        assert created(snapshot) == []
        assert message(snapshot) == "waits for quality on shop/run-1/checkpoint-20"


@pytest.mark.parametrize(
    "gone",
    [
        pytest.param(FAILED, id="failed"),
        pytest.param(scored(BASE, None), id="no value"),
        pytest.param(scored(BASE, math.nan, None), id="not a number"),
        pytest.param(EvaluationState(make_evaluation(BASE, other=0.99)), id="another metric"),
        pytest.param(scored(BASE, 0.99, questions="others"), id="other questions"),
    ],
)
def test_a_checkpoint_without_a_comparable_number_is_left_out_and_named(gone: EvaluationState) -> None:
    snapshot = seen(checkpoints(3), [gone, 0.6, 0.5], finished=["run-1"], selection=BEST, candidates="FinishedRuns")
    assert created(snapshot) == ["20"]
    assert message(snapshot).endswith("; without checkpoint-10, which have no such number")


def test_a_run_without_any_number_has_no_candidate() -> None:
    snapshot = seen(checkpoints(2), [FAILED, FAILED], finished=["run-1"], selection=BEST, candidates="FinishedRuns")
    assert created(snapshot) == []
    assert message(snapshot).startswith("no checkpoint has quality score yet; without checkpoint-10, checkpoint-20")


def test_of_equal_checkpoints_the_latest_is_chosen() -> None:
    snapshot = seen(checkpoints(3), [0.8, 0.8, 0.7], finished=["run-1"], selection=BEST, candidates="FinishedRuns")
    assert created(snapshot) == ["20"]


def test_the_metric_says_which_direction_is_better() -> None:
    versions = checkpoints(3)
    states = [scored(version, value, up=False) for version, value in zip(versions, (3.0, 2.0, 2.5), strict=True)]
    snapshot = seen(versions, states, finished=["run-1"], selection=BEST, candidates="FinishedRuns")
    assert created(snapshot) == ["20"]


def test_while_a_run_goes_on_a_checkpoint_is_tried_when_none_before_it_was_better() -> None:
    """In the order of the run, whatever the order in which they are measured."""
    versions, scores = checkpoints(4), [0.5, 0.7, 0.6, 0.8]
    tried: list[str] = []
    snapshot = seen(versions, [None] * 4, selection=BEST)
    for place in (1, 0, 3, 2):
        known = {(versions[place].digest, "quality"): scored(versions[place], scores[place])}
        snapshot = replace(snapshot, evaluations={**snapshot.evaluations, **known})
        plan = decide(snapshot, at(10))
        tried += [promotion.candidate.name.rsplit("-", 1)[1] for promotion in plan.create]
        snapshot = replace(snapshot, promotions=(*snapshot.promotions, *plan.create))
    assert tried == ["20", "40"]


def test_the_record_says_which_checkpoint_was_chosen_and_why() -> None:
    snapshot = seen(checkpoints(2), [0.8, 0.7], finished=["run-1"], selection=BEST, candidates="FinishedRuns")
    plan = decide(snapshot, at(10))
    later = decide(replace(snapshot, promotions=plan.create), at(11))
    assert later.events[0].message.endswith(
        "; checkpoint-10 has the best quality score of 2: 0.8 (0.75 to 0.85, n=100)"
    )
    assert plan.choices[0].version == "shop/run-1/checkpoint-10"


def test_a_best_checkpoint_that_is_older_than_what_was_tried_is_told_of_and_not_tried() -> None:
    """As with Latest: what is older than the newest attempt is never tried by itself."""
    other = checkpoints(1, run="run-2", after=1.5)
    policy = {"selection": BEST, "candidates": "FinishedRuns"}
    first = seen([*checkpoints(1), *other], [0.8, 0.7], finished=["run-2"], **policy)
    plan = decide(first, at(10))
    versions = [checkpoints(3)[0], *other, *checkpoints(3)[1:]]
    later = seen(versions, [0.8, 0.7, 0.6, 0.5], finished=["run-1", "run-2"], **policy)
    later = replace(later, promotions=plan.create)
    assert created(later) == []
    why = "it is not tried by itself, because shop/run-2/checkpoint-10 is newer and was"
    assert message(later).endswith(f"; {why}: make a Promotion of it to try it")


def test_a_run_that_was_stopped_has_ended() -> None:
    snapshot = seen(checkpoints(2), [0.8, 0.7], selection=BEST, candidates="FinishedRuns")
    assert created(replace(snapshot, stopped_runs=frozenset({"run-1"}))) == ["10"]


def test_with_latest_nothing_is_chosen_by_numbers() -> None:
    snapshot = seen(checkpoints(2), [0.9, 0.1], finished=["run-1"], candidates="FinishedRuns")
    assert (run_choices(snapshot), created(snapshot)) == ((), ["20"])


@pytest.mark.parametrize("seed", range(30))
def test_whatever_is_measured_first_the_end_is_the_best_of_all(seed: int) -> None:
    """Nothing is chosen before all is known, and then the same, in any order."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    versions = checkpoints(draw.randint(1, 6))
    states = [FAILED if draw.random() < 0.2 else scored(v, round(draw.random(), 1)) for v in versions]
    snapshot = seen(versions, [None] * len(versions), finished=["run-1"], selection=BEST, candidates="FinishedRuns")
    for place in draw.sample(range(len(versions)), len(versions)):
        assert created(snapshot) == []
        known = {(versions[place].digest, "quality"): states[place]}
        snapshot = replace(snapshot, evaluations={**snapshot.evaluations, **known})
    values = [state.result.metrics[0].value or 0 if state.result else -1 for state in states]
    best = max(range(len(values)), key=lambda place: (values[place], place))
    assert created(snapshot) == ([] if max(values) < 0 else [versions[best].name.rsplit("-", 1)[1]])


# Stopping


def rule(when: str, count: int = 2) -> Mapping[str, Any]:
    return {"stop_training": StopTraining(when=when, suite="quality", metric="score", checkpoints=count)}  # type: ignore[arg-type]


def stopped(snapshot: Snapshot) -> list[str]:
    return [stop.message for stop in training_stops(snapshot)]


def test_off_by_default() -> None:
    assert stopped(seen(checkpoints(5), [0.1] * 5, stable=0.9)) == []


def test_a_run_whose_last_checkpoints_are_all_worse_than_the_stable_is_stopped_with_the_numbers() -> None:
    snapshot = seen(checkpoints(3), [0.7, 0.5, 0.4], stable=0.7, **rule("WorseThanStable"))
    assert stopped(snapshot) == [
        "run-1: quality score is 0.5 at checkpoint-20, 0.4 at checkpoint-30, all worse than the 95 % interval of the "
        f"stable {BASE.name}, 0.7 (0.65 to 0.75, n=100)"
    ]
    assert decide(snapshot, at(1)).stops[0].newest == checkpoints(3)[-1]


def test_newer_checkpoints_that_are_still_measured_hold_nothing_up() -> None:
    assert stopped(seen(checkpoints(3), [0.5, 0.4, None], stable=0.7, **rule("WorseThanStable")))


@pytest.mark.parametrize(
    ("states", "stable"),
    [
        pytest.param([0.5, 0.66, 0.4], 0.7, id="one within the interval"),
        pytest.param([0.5], 0.7, id="too few"),
        pytest.param([0.5, FAILED, 0.4], 0.7, id="one that failed"),
        pytest.param([0.4, FAILED], 0.7, id="the last one failed"),
        pytest.param([0.5, scored(BASE, None)], 0.7, id="one without a value"),
        pytest.param([0.5, scored(BASE, math.nan, None)], 0.7, id="one that is not a number"),
        pytest.param([0.5, scored(BASE, 0.4, questions="others")], 0.7, id="one of other questions"),
        pytest.param([0.5, 0.4], None, id="a stable that is not measured"),
        pytest.param([0.5, 0.4], FAILED, id="a stable that can't be measured"),
        pytest.param([0.5, 0.4], scored(BASE, 0.7, None), id="a stable without an interval"),
        pytest.param([0.5, 0.4], scored(BASE, 0.7, questions="others"), id="a stable of other questions"),
    ],
)
def test_no_job_is_stopped_on_numbers_that_are_missing_or_differ(
    states: list[EvaluationState | float], stable: EvaluationState | float | None
) -> None:
    assert stopped(seen(checkpoints(len(states)), states, stable=stable, **rule("WorseThanStable"))) == []


def test_a_run_that_gains_nothing_beyond_noise_is_stopped() -> None:
    snapshot = seen(checkpoints(4), [0.5, 0.7, 0.74, 0.72], **rule("NoGain"))
    assert stopped(snapshot) == [
        "run-1: quality score is 0.74 at checkpoint-30, 0.72 at checkpoint-40, no gain beyond the 95 % interval of "
        "checkpoint-20, 0.7 (0.65 to 0.75, n=100)"
    ]
    assert stopped(seen(checkpoints(4), [0.5, 0.7, 0.72, 0.76], **rule("NoGain"))) == []
    assert stopped(seen(checkpoints(2), [0.5, 0.5], **rule("NoGain"))) == [], "nothing came before"


def test_less_may_be_better() -> None:
    versions = checkpoints(2)
    states = [scored(version, value, up=False) for version, value in zip(versions, (2.0, 2.2), strict=True)]
    worse = seen(versions, states, stable=scored(BASE, 1.5, up=False), **rule("WorseThanStable"))
    assert len(stopped(worse)) == 1
    assert stopped(replace(worse, training_runs=frozenset())) == [], "it is over, or was stopped before"


def test_a_policy_names_what_is_measured() -> None:
    for change in ({"selection": Selection(type="BestOf", suite="other", metric="score")}, rule("NoGain")):
        fields = {**change, "suites": ("quality-2",), "gates": ()}
        with pytest.raises(ValueError, match="names a suite that is not evaluated"):
            make_policy(**fields)
    with pytest.raises(ValueError, match="BestOf needs suite and metric"):
        Selection(type="BestOf")
    with pytest.raises(ValueError, match="Latest has neither"):
        Selection(metric="score", suite="quality")
