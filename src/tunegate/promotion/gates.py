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
from tunegate.statistics.paired import Difference

# 0.1 + 0.2 must pass a bound of 0.3: a last-digit difference is representation, not quality.
_RELATIVE, _ABSOLUTE = 1e-9, 1e-12
# Narrower than this part of it no suite can make an interval.
_MOST_TIMES = 100

Differences = Mapping[tuple[str, str], Difference | str]
_NONE: Differences = {}


def check_gates(
    gates: Iterable[Gate],
    candidate: Mapping[str, Evaluation],
    stable: Mapping[str, Evaluation],
    differences: Differences = _NONE,
) -> tuple[GateResult, ...]:
    """Check every gate, in order, also after one has failed: a person wants to see all the numbers."""
    return tuple(check_gate(gate, candidate, stable, differences) for gate in gates)


def check_gate(
    gate: Gate,
    candidate: Mapping[str, Evaluation],
    stable: Mapping[str, Evaluation],
    differences: Differences = _NONE,
) -> GateResult:
    """Hold one gate against the evaluations of both versions, keyed by suite name.

    differences: from stable to candidate question by question, by suite and metric, or why there is none.

    `passed` is True or False when the numbers say so, None when they are missing or can't be compared; `message` is
    one sentence with the numbers, or with the remedy. `max_regression` takes the direction from the metric and refuses
    evaluations made with different contents of the suite.
    """
    observed = _measure(gate, candidate, "candidate")
    if isinstance(observed, str):
        return _result(gate, None, observed)
    if gate.basis == "Interval" and (unknown := _unknown_interval(gate, observed, "candidate")):
        return _result(gate, None, unknown, observed)
    if gate.max_regression is None and gate.basis == "Interval":
        return _check_interval(gate, observed)
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
    if gate.basis == "Paired":
        return _check_pairs(gate, observed, reference, differences.get((gate.suite, gate.metric), "were not compared"))
    if gate.basis == "Interval":
        if unknown := _unknown_interval(gate, reference, "stable"):
            return _result(gate, None, unknown, observed, reference)
        return _check_difference(gate, observed, reference)
    passed, verdict = _check_regression(gate, observed, reference)
    return _result(gate, passed, f"{gate.suite} {_shown(observed)} {verdict}", observed, reference)


@dataclass(frozen=True)
class _Measured:
    """A metric whose value is known to be a finite number over at least one item."""

    metric: Metric
    value: float

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval; None where it is not known."""
        low, high = self.metric.low, self.metric.high
        if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
            return None
        return low, high

    @property
    def ends(self) -> tuple[float, float]:
        """The interval where it was found to be known."""
        assert self.interval is not None
        return self.interval


def _measure(gate: Gate, evaluations: Mapping[str, Evaluation], whose: str) -> _Measured | str:
    """The metric, or a sentence that says what is missing and what to do."""
    evaluation = evaluations.get(gate.suite)
    if evaluation is None:
        return f"{gate.suite} was not evaluated for the {whose}; evaluate the {whose} with this suite"
    if evaluation.total is not None and (evaluation.completed or 0) < evaluation.total:
        return (
            f"{gate.suite} of the {whose} is incomplete: {evaluation.completed or 0} of {evaluation.total} questions "
            f"have an answer; evaluate the {whose} again"
        )
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


def _unknown_interval(gate: Gate, measured: _Measured, whose: str) -> str:
    """What to do where the interval is not known; empty where it is."""
    if measured.interval is not None:
        return ""
    return (
        f"{gate.suite} {gate.metric} of the {whose} has no 95 % interval, which this gate is held on; evaluate the "
        f"{whose} again with --force, or set the gate's basis to Value"
    )


def _check_interval(gate: Gate, observed: _Measured) -> GateResult:
    """The end of the interval that is nearer to the bound decides."""
    kind, threshold = _bound(gate)
    low, high = observed.ends
    least = kind == "min"
    passed = _at_least(low, threshold) if least else _at_least(threshold, high)
    distance = observed.value - threshold if least else threshold - observed.value
    more = None if passed else _more(distance, observed.value - low if least else high - observed.value, observed)
    end, number = ("lower", low) if least else ("upper", high)
    place = "reaches" if least and passed else "is within" if passed else "is below" if least else "is above"
    verdict = f"the {end} end {_number(number)} {place} the {'minimum' if least else 'maximum'} {_number(threshold)}"
    message = f"{gate.suite} {_shown_interval(observed)}: {verdict}{_needed(more)}"
    return _result(gate, passed, message, observed, between=(low, high), more=more)


def _check_difference(gate: Gate, observed: _Measured, reference: _Measured) -> GateResult:
    """The worse end of the interval of candidate less stable decides.

    The interval is made of those of both (Newcombe, Interval estimation for the difference between independent
    proportions, 1998, method 10): wider than one by question, never narrower than the numbers bear.
    """
    allowed, sign = _bound(gate)[1], 1 if observed.metric.higher_is_better else -1
    (low, high), (stable_low, stable_high) = observed.ends, reference.ends
    difference = observed.value - reference.value
    below = math.hypot(observed.value - low, stable_high - reference.value)
    above = math.hypot(high - observed.value, reference.value - stable_low)
    worst = -difference - above if sign < 0 else difference - below
    passed = _at_least(worst + allowed, 0.0)
    more = None if passed else _more(sign * difference + allowed, above if sign < 0 else below, observed)
    between = (difference - below, difference + above)
    verdict = (
        f"is {difference:+.3g} beside {_number(reference.value)} of the stable (95 %: {between[0]:+.3g} to "
        f"{between[1]:+.3g}), so it may be worse by {_number(max(0.0, -worst))}, "
        f"{'within' if passed else 'more than'} the allowed {_number(allowed)}{_needed(more)}"
    )
    message = f"{gate.suite} {_shown_interval(observed)} {verdict}"
    return _result(gate, passed, message, observed, reference, between=between, more=more)


def _check_pairs(gate: Gate, observed: _Measured, reference: _Measured, found: Difference | str) -> GateResult:
    """The worse end of the interval of the difference question by question decides."""
    if isinstance(found, str):
        remedy = "evaluate both again with --force, or set the gate's basis to Interval"
        message = f"{gate.suite} of candidate and stable can't be compared question by question: both {found}; {remedy}"
        return _result(gate, None, message, observed, reference)
    allowed, sign = _bound(gate)[1], 1 if observed.metric.higher_is_better else -1
    worst, difference = min(sign * found.low, sign * found.high), sign * found.value
    passed = _at_least(worst + allowed, 0.0)
    more = None if passed else _more(difference + allowed, difference - worst, observed)
    better, worse = (found.up, found.down) if sign > 0 else (found.down, found.up)
    place = "within" if passed else "more than"
    verdict = (
        f"is {found.value:+.3g} beside {_number(reference.value)} of the stable question by question (95 %: "
        f"{found.low:+.3g} to {found.high:+.3g}; {better} better, {worse} worse of {found.n}), so it may be worse by "
        f"{_number(max(0.0, -worst))}, {place} the allowed {_number(allowed)}{_needed(more)}"
    )
    message = f"{gate.suite} {gate.metric} {_number(observed.value)} {verdict}"
    return _result(gate, passed, message, observed, reference, between=(found.low, found.high), more=more)


def _more(distance: float, half: float, observed: _Measured) -> int | None:
    """About how many more questions would let these numbers pass: the interval shrinks by the root of their number.

    None where the number itself does not pass, so that more questions would show that at most.
    """
    if distance <= 0 or half / distance > _MOST_TIMES:
        return None
    times = round((half / distance) ** 2, 6)  # or a last digit would be a question
    return max(1, math.ceil(observed.metric.n * (times - 1)))


def _needed(more: int | None) -> str:
    return f"; about {more} more questions with the same share would show it" if more else ""


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
    gate: Gate,
    passed: bool | None,
    message: str,
    observed: _Measured | None = None,
    stable: _Measured | None = None,
    *,
    between: tuple[float, float] | None = None,
    more: int | None = None,
) -> GateResult:
    """between: the interval that the gate was held on; by default the one of what was observed."""
    bound, threshold = _bound(gate)
    low, high = between or (observed and observed.interval) or (None, None)
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
        basis=gate.basis,
        low=low,
        high=high,
        more=more,
        message=message,
    )


def _shown(measured: _Measured, named: bool = True) -> str:
    """`score 0.42 ± 0.10 (n=24)`: the standard error only where there is one."""
    metric = measured.metric
    error = f" ± {_number(metric.stderr)}" if metric.stderr is not None and math.isfinite(metric.stderr) else ""
    number = f"{_number(measured.value)}{error}"
    return f"{metric.name} {number} (n={metric.n})" if named else number


def _shown_interval(measured: _Measured) -> str:
    """`score 0.42 (95 %: 0.30 to 0.55, n=24)`, or `n=24 of 8 clusters`."""
    low, high = measured.ends
    metric, number = measured.metric, _number(measured.value)
    count = f"n={metric.n} of {metric.clusters} clusters" if metric.clusters else f"n={metric.n}"
    return f"{metric.name} {number} (95 %: {_number(low)} to {_number(high)}, {count})"


def _number(value: float) -> str:
    """Two decimals, or as many significant digits as it takes where two decimals would hide the number."""
    return f"{value:.2f}" if value == 0 or 0.1 <= abs(value) < 1e6 else f"{value:.3g}"
