"""Gates: bounds on what the evaluations measured, decided before any user sees the candidate.

A gate passes on numbers only. Where a number is missing, not finite, over no items, or not comparable, the result is
None with the remedy: never a pass, and never a "no" that would blame the candidate for a broken evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from tunegate.api.evaluation import Evaluation, Metric
from tunegate.api.policy import Gate
from tunegate.api.promotion import GateResult

# 0.1 + 0.2 must pass a bound of 0.3: a last-digit difference is representation, not quality.
_RELATIVE, _ABSOLUTE = 1e-9, 1e-12


def check_gates(
    gates: Iterable[Gate], candidate: Mapping[str, Evaluation], stable: Mapping[str, Evaluation]
) -> tuple[GateResult, ...]:
    """Check every gate, in order, also after one has failed: a person wants to see all the numbers."""
    return tuple(check_gate(gate, candidate, stable) for gate in gates)


def check_gate(gate: Gate, candidate: Mapping[str, Evaluation], stable: Mapping[str, Evaluation]) -> GateResult:
    """Hold one gate against the evaluations of both versions, keyed by suite name.

    `passed` is True or False when the numbers say so, None when they are missing or can't be compared; `message` is
    one sentence with the numbers, or with the remedy. `max_regression` takes the direction from the metric and refuses
    evaluations made with different contents of the suite.
    """
    observed = _measure(gate, candidate, "candidate")
    if isinstance(observed, str):
        return _result(gate, None, observed)
    if gate.max_regression is None:
        kind, threshold = _bound(gate)
        least = kind == "min"
        passed = _at_least(observed.value, threshold) if least else _at_least(threshold, observed.value)
        place = "reaches" if least and passed else "is within" if passed else "is below" if least else "is above"
        verdict = f"{place} the {'minimum' if least else 'maximum'} {_number(threshold)}"
        return _result(gate, passed, f"{gate.suite} {_shown(observed)} {verdict}", observed)
    reference = _measure(gate, stable, "stable")
    if isinstance(reference, str):
        return _result(gate, None, reference, observed)
    if candidate[gate.suite].suite_digest != stable[gate.suite].suite_digest:
        changed = (
            f"{gate.suite} changed between the evaluations of candidate and stable, so they can't be compared; "
            "evaluate both with the same suite"
        )
        return _result(gate, None, changed, observed, reference)
    passed, verdict = _check_regression(gate, observed, reference)
    return _result(gate, passed, f"{gate.suite} {_shown(observed)} {verdict}", observed, reference)


@dataclass(frozen=True)
class _Measured:
    """A metric whose value is known to be a finite number over at least one item."""

    metric: Metric
    value: float


def _measure(gate: Gate, evaluations: Mapping[str, Evaluation], whose: str) -> _Measured | str:
    """The metric, or a sentence that says what is missing and what to do."""
    evaluation = evaluations.get(gate.suite)
    if evaluation is None:
        return f"{gate.suite} was not evaluated for the {whose}; evaluate the {whose} with this suite"
    metric = evaluation.metric(gate.metric)
    if metric is None:
        known = ", ".join(sorted(metric.name for metric in evaluation.metrics)) or "none"
        return f"{gate.suite} of the {whose} has no metric {gate.metric} (it has: {known}); correct the gate's metric"
    if metric.value is None or not math.isfinite(metric.value) or metric.n <= 0:
        return (
            f"{gate.suite} {gate.metric} of the {whose} was not measured "
            f"(value {metric.value}, n={metric.n}); repair the suite and evaluate the {whose} again"
        )
    return _Measured(metric, metric.value)


def _check_regression(gate: Gate, observed: _Measured, reference: _Measured) -> tuple[bool, str]:
    allowed = _bound(gate)[1]
    sign = 1 if observed.metric.higher_is_better else -1
    # compared as sums: the difference of two near numbers would magnify their last digits
    passed = _at_least(sign * observed.value + allowed, sign * reference.value)
    worse_by = sign * (reference.value - observed.value)
    if worse_by <= 0:
        return passed, f"is no worse than {_shown(reference, named=False)} of the stable"
    distance = f"is worse than {_shown(reference, named=False)} of the stable by {_number(worse_by)}"
    return passed, f"{distance}, {'within' if passed else 'more than'} the allowed {_number(allowed)}"


def _at_least(value: float, bound: float) -> bool:
    return value >= bound or math.isclose(value, bound, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)


def _bound(gate: Gate) -> tuple[Literal["min", "max", "maxRegression"], float]:
    if gate.min is not None:
        return "min", gate.min
    if gate.max is not None:
        return "max", gate.max
    assert gate.max_regression is not None, "a Gate has exactly one bound"
    return "maxRegression", gate.max_regression


def _result(
    gate: Gate, passed: bool | None, message: str, observed: _Measured | None = None, stable: _Measured | None = None
) -> GateResult:
    bound, threshold = _bound(gate)
    return GateResult(
        suite=gate.suite,
        metric=gate.metric,
        bound=bound,
        threshold=threshold,
        passed=passed,
        observed=observed.value if observed else None,
        stderr=observed.metric.stderr if observed else None,
        n=observed.metric.n if observed else 0,
        stable=stable.value if stable else None,
        message=message,
    )


def _shown(measured: _Measured, named: bool = True) -> str:
    """`score 0.42 ± 0.10 (n=24)`: the standard error only where there is one."""
    metric = measured.metric
    error = f" ± {_number(metric.stderr)}" if metric.stderr is not None and math.isfinite(metric.stderr) else ""
    number = f"{_number(measured.value)}{error}"
    return f"{metric.name} {number} (n={metric.n})" if named else number


def _number(value: float) -> str:
    """Two decimals, or as many significant digits as it takes where two decimals would hide the number."""
    return f"{value:.2f}" if value == 0 or 0.1 <= abs(value) < 1e6 else f"{value:.3g}"
