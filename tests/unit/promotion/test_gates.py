from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from tunegate.api.evaluation import Evaluation, Metric
from tunegate.api.policy import Gate
from tunegate.promotion.gates import check_gate, check_gates
from tunegate.statistics.paired import Difference

NAN, INF = math.nan, math.inf


def metric(value: float | None, *, n: int = 24, stderr: float | None = 0.1, higher_is_better: bool = True) -> Metric:
    return Metric(name="score", value=value, stderr=stderr, n=n, higher_is_better=higher_is_better)


def evaluated(*metrics: Metric, suite_digest: str = "sha256:5") -> dict[str, Evaluation]:
    evaluation = Evaluation(
        version="s3://b/m/run/checkpoint-1/",
        digest="sha256:1",
        suite="shop-en",
        suite_digest=suite_digest,
        metrics=metrics,
        records=(),
        code_version="1",
        started=datetime(2030, 1, 1, tzinfo=UTC),
        seconds=1.0,
    )
    return {"shop-en": evaluation}


def gate(**bound: Any) -> Gate:
    return Gate(suite="shop-en", metric="score", **bound)


@pytest.mark.parametrize(
    ("bound", "value", "passed"),
    [
        pytest.param({"min": 0.6}, 0.7, True, id="above the minimum"),
        pytest.param({"min": 0.6}, 0.6, True, id="at the minimum"),
        pytest.param({"min": 0.3}, 0.1 + 0.2, True, id="at the minimum, last digit up"),
        pytest.param({"min": 0.1 + 0.2}, 0.3, True, id="at the minimum, last digit down"),
        pytest.param({"min": 0.0}, 0.0, True, id="zero at a minimum of zero"),
        pytest.param({"min": 0.6}, 0.599999, False, id="just below the minimum"),
        pytest.param({"min": -1.0}, -1.5, False, id="below a negative minimum"),
        pytest.param({"max": 0.2}, 0.1, True, id="below the maximum"),
        pytest.param({"max": 0.2}, 0.2, True, id="at the maximum"),
        pytest.param({"max": 0.3}, 0.1 + 0.2, True, id="at the maximum, last digit up"),
        pytest.param({"max": 0.2}, 0.200001, False, id="just above the maximum"),
        pytest.param({"max": 0.0}, 0.01, False, id="above a maximum of zero"),
    ],
)
def test_bound_holds_the_candidate_alone(bound, value, passed):
    result = check_gate(gate(**bound), evaluated(metric(value)), {})

    assert result.passed is passed
    assert (result.bound, result.threshold) == next(iter(bound.items()))
    assert (result.observed, result.stderr, result.n, result.stable) == (value, 0.1, 24, None)


@pytest.mark.parametrize(
    ("allowed", "value", "stable", "higher_is_better", "passed"),
    [
        pytest.param(0.1, 0.55, 0.60, True, True, id="a little lower is within"),
        pytest.param(0.1, 0.50, 0.60, True, True, id="exactly the allowed distance"),
        pytest.param(0.1, 0.2, 0.3, True, True, id="exactly the allowed distance, last digit"),
        pytest.param(0.1, 0.45, 0.60, True, False, id="too much lower"),
        pytest.param(0.1, 0.95, 0.60, True, True, id="better"),
        pytest.param(0.0, 0.60, 0.60, True, True, id="nothing allowed, equal"),
        pytest.param(0.0, 0.59, 0.60, True, False, id="nothing allowed, a little lower"),
        pytest.param(0.1, 0.65, 0.60, False, True, id="lower is better: a little higher is within"),
        pytest.param(0.1, 0.70, 0.60, False, True, id="lower is better: exactly the allowed distance"),
        pytest.param(0.1, 0.75, 0.60, False, False, id="lower is better: too much higher"),
        pytest.param(0.1, 0.10, 0.60, False, True, id="lower is better: better"),
    ],
)
def test_regression_is_measured_in_the_direction_of_the_metric(allowed, value, stable, higher_is_better, passed):
    candidate = evaluated(metric(value, higher_is_better=higher_is_better))
    reference = evaluated(metric(stable, higher_is_better=higher_is_better))

    result = check_gate(gate(max_regression=allowed), candidate, reference)

    assert (result.passed, result.bound, result.observed, result.stable) == (passed, "maxRegression", value, stable)


UNUSABLE = [
    pytest.param({}, "shop-en was not evaluated for the", id="suite not evaluated"),
    pytest.param(evaluated(), "has no metric score (it has: none)", id="metric missing"),
    pytest.param(evaluated(metric(None)), "was not measured (value None", id="not measured"),
    pytest.param(evaluated(metric(NAN)), "was not measured (value nan", id="NaN"),
    pytest.param(evaluated(metric(INF)), "was not measured (value inf", id="infinite"),
    pytest.param(evaluated(metric(-INF)), "was not measured (value -inf", id="minus infinite"),
    pytest.param(evaluated(metric(1.0, n=0)), "n=0", id="over no items"),
]


@pytest.mark.parametrize("bound", [{"min": 0.0}, {"max": 1.0}, {"max_regression": 1.0}], ids=lambda b: next(iter(b)))
@pytest.mark.parametrize(("candidate", "message"), UNUSABLE)
def test_missing_number_of_the_candidate_is_never_a_pass(candidate, message, bound):
    result = check_gate(gate(**bound), candidate, evaluated(metric(0.5)))

    assert result.passed is None
    assert result.observed is None
    assert message in result.message
    assert "candidate" in result.message


@pytest.mark.parametrize(("stable", "message"), UNUSABLE)
def test_missing_number_of_the_stable_leaves_a_regression_undecided(stable, message):
    result = check_gate(gate(max_regression=1.0), evaluated(metric(0.5)), stable)

    assert result.passed is None
    assert result.observed == 0.5
    assert message in result.message
    assert "stable" in result.message


def test_missing_number_of_the_stable_does_not_matter_to_a_bound():
    assert check_gate(gate(min=0.4), evaluated(metric(0.5)), {}).passed is True


def test_results_of_different_suite_contents_are_not_compared():
    candidate, stable = evaluated(metric(0.9)), evaluated(metric(0.5), suite_digest="sha256:6")

    result = check_gate(gate(max_regression=0.1), candidate, stable)

    assert result.passed is None
    assert "evaluate both with the same suite" in result.message


@pytest.mark.parametrize(
    ("bound", "value", "stable", "message"),
    [
        ({"min": 0.6}, 0.42, 0.5, "shop-en score 0.42 ± 0.10 (n=24) is below the minimum 0.60"),
        ({"min": 0.4}, 0.42, 0.5, "shop-en score 0.42 ± 0.10 (n=24) reaches the minimum 0.40"),
        ({"max": 0.4}, 0.42, 0.5, "shop-en score 0.42 ± 0.10 (n=24) is above the maximum 0.40"),
        ({"max": 0.5}, 0.42, 0.5, "shop-en score 0.42 ± 0.10 (n=24) is within the maximum 0.50"),
        (
            {"max_regression": 0.05},
            0.42,
            0.6,
            "shop-en score 0.42 ± 0.10 (n=24) is worse than 0.60 ± 0.10 of the stable by 0.18, "
            "more than the allowed 0.05",
        ),
        (
            {"max_regression": 0.2},
            0.42,
            0.6,
            "shop-en score 0.42 ± 0.10 (n=24) is worse than 0.60 ± 0.10 of the stable by 0.18, within the allowed 0.20",
        ),
        (
            {"max_regression": 0.2},
            0.62,
            0.6,
            "shop-en score 0.62 ± 0.10 (n=24) is no worse than 0.60 ± 0.10 of the stable",
        ),
    ],
)
def test_message_is_one_sentence_with_the_numbers(bound, value, stable, message):
    assert check_gate(gate(**bound), evaluated(metric(value)), evaluated(metric(stable))).message == message


def test_message_shows_no_error_where_none_is_known():
    result = check_gate(gate(min=0.05), evaluated(metric(0.0123, stderr=None)), {})

    assert result.message == "shop-en score 0.0123 (n=24) is below the minimum 0.05"


def test_all_gates_are_checked_in_order():
    gates = [gate(min=0.9), gate(max_regression=0.1), gate(max=0.6)]

    results = check_gates(gates, evaluated(metric(0.5)), {})

    assert [result.passed for result in results] == [False, None, True]
    assert [result.bound for result in results] == ["min", "maxRegression", "max"]


def ranged(value: float, low: float | None, high: float | None, *, higher_is_better: bool = True) -> Metric:
    return Metric(name="score", value=value, low=low, high=high, n=150, higher_is_better=higher_is_better)


@pytest.mark.parametrize(
    ("bound", "low", "high", "passed"),
    [
        pytest.param({"min": 0.6}, 0.6, 0.8, True, id="the lower end reaches the minimum"),
        pytest.param({"min": 0.6}, 0.59, 0.8, False, id="the lower end is below the minimum"),
        pytest.param({"max": 0.8}, 0.6, 0.8, True, id="the upper end is at the maximum"),
        pytest.param({"max": 0.79}, 0.6, 0.8, False, id="the upper end is above the maximum"),
    ],
)
def test_a_gate_on_the_interval_is_held_on_its_worse_end(bound, low, high, passed):
    result = check_gate(gate(**bound, basis="Interval"), evaluated(ranged(0.7, low, high)), {})

    assert (result.passed, result.basis, result.low, result.high) == (passed, "Interval", low, high)


def test_a_gate_on_the_value_passes_where_one_on_the_interval_says_how_many_more_questions_it_takes():
    candidate = evaluated(ranged(0.7, 0.6, 0.8))

    assert check_gate(gate(min=0.65), candidate, {}).passed is True
    result = check_gate(gate(min=0.65, basis="Interval"), candidate, {})

    # half of the width is 0.1 and has to shrink to 0.05: four times the questions
    assert (result.passed, result.more) == (False, 450)
    assert result.message == (
        "shop-en score 0.70 (95 %: 0.60 to 0.80, n=150): the lower end 0.60 is below the minimum 0.65; "
        "about 450 more questions with the same share would show it"
    )


@pytest.mark.parametrize("value", [0.6, 0.65, 0.65 + 1e-15], ids=["below", "at", "a last digit above"])
def test_no_number_of_questions_shows_what_the_value_does_not_say(value):
    assert check_gate(gate(min=0.65, basis="Interval"), evaluated(ranged(value, 0.5, 0.8)), {}).more is None


@pytest.mark.parametrize(
    ("higher_is_better", "allowed", "passed"),
    [
        pytest.param(True, 0.0867, True, id="higher is better, at most as much worse as is allowed"),
        pytest.param(True, 0.0866, False, id="higher is better, more"),
        pytest.param(False, 0.1082, True, id="lower is better, at most as much worse as is allowed"),
        pytest.param(False, 0.1081, False, id="lower is better, more"),
    ],
)
def test_a_regression_on_the_interval_is_the_worst_that_newcombes_interval_leaves(higher_is_better, allowed, passed):
    # 0.8 (0.7 to 0.85) beside 0.77 (0.71 to 0.83): 0.03 - sqrt(0.1^2 + 0.06^2) to 0.03 + sqrt(0.05^2 + 0.06^2)
    candidate = evaluated(ranged(0.8, 0.7, 0.85, higher_is_better=higher_is_better))
    stable = evaluated(ranged(0.77, 0.71, 0.83, higher_is_better=higher_is_better))

    result = check_gate(gate(max_regression=allowed, basis="Interval"), candidate, stable)

    assert result.passed is passed
    assert result.low == pytest.approx(0.03 - math.hypot(0.1, 0.06))
    assert result.high == pytest.approx(0.03 + math.hypot(0.05, 0.06))
    assert "of the stable (95 %: -0.0866 to +0.108)" in result.message


@pytest.mark.parametrize("bound", [{"min": 0.1}, {"max": 1.0}, {"max_regression": 1.0}], ids=lambda b: next(iter(b)))
@pytest.mark.parametrize("ends", [(None, None), (NAN, 0.8), (0.1, INF)])
def test_a_gate_on_an_interval_that_is_not_known_is_undecided(bound, ends):
    known, unknown = evaluated(ranged(0.7, 0.6, 0.8)), evaluated(ranged(0.7, *ends))

    assert check_gate(gate(**bound, basis="Interval"), unknown, known).passed is None
    if "max_regression" in bound:
        result = check_gate(gate(**bound, basis="Interval"), known, unknown)
        assert result.passed is None
        assert "set the gate's basis to Value" in result.message


def changed(low: float, high: float, *, up: int = 3, down: int = 6) -> dict[tuple[str, str], Difference | str]:
    return {("shop-en", "score"): Difference(n=150, up=up, down=down, value=-0.02, low=low, high=high)}


@pytest.mark.parametrize(
    ("higher_is_better", "allowed", "passed"),
    [
        pytest.param(True, 0.06, True, id="at most as much lower as is allowed"),
        pytest.param(True, 0.05, False, id="maybe lower than is allowed"),
        pytest.param(False, 0.02, True, id="lower is better, at most as much higher as is allowed"),
        pytest.param(False, 0.01, False, id="lower is better, maybe higher than is allowed"),
    ],
)
def test_a_gate_on_pairs_is_held_on_the_worse_end_of_the_difference(higher_is_better, allowed, passed):
    candidate = evaluated(ranged(0.58, 0.5, 0.66, higher_is_better=higher_is_better))
    stable = evaluated(ranged(0.6, 0.52, 0.68, higher_is_better=higher_is_better))

    result = check_gate(gate(max_regression=allowed, basis="Paired"), candidate, stable, changed(-0.06, 0.02))

    assert (result.passed, result.basis, result.low, result.high) == (passed, "Paired", -0.06, 0.02)
    better, worse = (3, 6) if higher_is_better else (6, 3)
    assert f"question by question (95 %: -0.06 to +0.02; {better} better, {worse} worse of 150)" in result.message


def test_a_gate_on_pairs_says_how_many_more_questions_would_show_it():
    stable = evaluated(ranged(0.6, 0.52, 0.68))

    result = check_gate(
        gate(max_regression=0.04, basis="Paired"), evaluated(metric(0.58, n=150)), stable, changed(-0.06, 0.02)
    )

    # -0.02 is 0.02 above what is allowed, and the interval reaches 0.04 below it: four times the questions
    assert (result.passed, result.more) == (False, 450)
    assert result.message == (
        "shop-en score 0.58 is -0.02 beside 0.60 of the stable question by question (95 %: -0.06 to +0.02; 3 better, 6 "
        "worse of 150), so it may be worse by 0.06, more than the allowed 0.04; about 450 more questions with the same "
        "share would show it"
    )


def test_a_gate_on_pairs_without_pairs_is_undecided_and_says_why():
    known = evaluated(metric(0.9))
    gates = [gate(max_regression=0.5, basis="Paired")]

    (result,) = check_gates(gates, known, known, {("shop-en", "score"): "have no score of each of the same questions"})

    assert result.passed is None
    assert result.message == (
        "shop-en of candidate and stable can't be compared question by question: both have no score of each of the "
        "same questions; evaluate both again with --force, or set the gate's basis to Interval"
    )
    assert check_gate(gates[0], known, known).passed is None


def test_a_gate_on_pairs_of_another_suite_says_so():
    known, other = evaluated(metric(0.9)), evaluated(metric(0.9), suite_digest="sha256:6")

    result = check_gate(gate(max_regression=0.5, basis="Paired"), known, other, changed(0.0, 0.0))

    assert result.passed is None
    assert "evaluate both with the same suite" in result.message


@pytest.mark.parametrize("bound", [{"min": 0.5}, {"max": 0.5}])
def test_pairs_compare_with_the_stable(bound):
    with pytest.raises(ValueError, match="Paired compares with the stable, by maxRegression"):
        gate(**bound, basis="Paired")


@pytest.mark.parametrize("whose", ["candidate", "stable"])
def test_a_result_that_lacks_answers_is_refused_by_name(whose):
    whole = evaluated(metric(0.9))
    part = {"shop-en": msgspec.structs.replace(whole["shop-en"], completed=149, total=150)}
    candidate, stable = (part, whole) if whose == "candidate" else (whole, part)

    result = check_gate(gate(max_regression=0.5), candidate, stable)

    assert result.passed is None
    assert f"shop-en of the {whose} is incomplete: 149 of 150 questions have an answer" in result.message


def test_a_result_with_all_its_answers_is_used():
    whole = {"shop-en": msgspec.structs.replace(evaluated(metric(0.9))["shop-en"], completed=150, total=150)}

    assert check_gate(gate(min=0.5), whole, {}).passed is True
