from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest

from tunegate.api.evaluation import Evaluation, Metric
from tunegate.api.policy import Gate
from tunegate.promotion.gates import check_gate, check_gates

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


def gate(**bound: float) -> Gate:
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
