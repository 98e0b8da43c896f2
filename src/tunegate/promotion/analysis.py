"""Is the candidate disliked more than the stable version that answers beside it?

The answer is a function of the thumbs up and down of both in each step, so it needs no memory, survives restarts and
works from counters that anyone can read. It knows nothing of where the counts come from, or of time.

The method and its proof: docs/design/canary-analysis.md. In short: for any threshold p of a step one may bet, answer by
answer, at odds that are fair at p, that the candidate is disliked more often than p, and that the stable is disliked
less often than p. If the candidate is no worse, some p makes both bets unfavorable, in each step another one. So the
smallest product of the two capitals over all p, multiplied over the steps, is an e-process: the chance that it EVER
reaches 1/alpha is at most alpha.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

from tunegate.api.feedback import Tally, Verdicts
from tunegate.api.policy import FeedbackGuard
from tunegate.api.promotion import Comparison, Outcome, StepVerdicts

# Each stake multiplies the odds of a thumbs down by exp(effect). A stake of 0 keeps its money, for the arm of which
# much is known already; the others are spread over all effects that can matter. Any choice is valid; this one finds
# 20 % against 40 % and 10 % against 20 % quickly at even and at 10/90 splits.
_EFFECTS = (0.0, 0.04, 0.1, 0.25, 0.6, 1.5)
_SHARES = (0.2, 0.05, 0.1, 0.2, 0.25, 0.2)
_STAKES = tuple((math.log(share), effect, math.expm1(effect)) for share, effect in zip(_SHARES, _EFFECTS, strict=True))

_LARGEST_LOG = 690.0  # evidence is kept below 1e300, so that it stays a number in JSON
_FARTHEST = 1_000_000  # judged answers of the candidate; a conclusion farther away than this is not foretold
_PRECISION = 1e-9  # of the logarithm of the evidence; rounded down, never up


def compare(candidate: Verdicts | None, stable: Verdicts | None, guard: FeedbackGuard, steps: int) -> Comparison:
    """Compare the thumbs down of the candidate with those of the concurrent stable, at any moment, as often as liked.

    `steps` is the number of steps in which the stable answers beside the candidate; verdicts of later ones are compared
    with those of the last of them.

    "Worse": the candidate's share of thumbs down is above the stable's. For a candidate that is no worse, the chance of
    ever hearing this, over all looks, is at most `guard.alpha`.
    "NotWorse": the candidate's share is less than `guard.margin` above the stable's. For a candidate that is worse by
    the margin or more, the chance of ever hearing this is at most `guard.alpha`. When both hold, the difference is real
    but within the margin, which the guard counts as not worse.
    "Inconclusive": neither yet, or fewer than `guard.min_verdicts` answers of the candidate, or no counts (None).

    Both levels hold for any split of the traffic, also one that changes or reacts to what was seen, and however the
    mood of all users drifts from step to step.
    """
    threshold = 1 / guard.alpha
    if candidate is None or stable is None:
        return _without_counts(candidate, stable, threshold)
    judged = _steps(candidate, stable, steps)
    ours, theirs = _total(step.candidate for step in judged), _total(step.stable for step in judged)
    evidence = _Evidence.of((step.counts for step in judged), guard.margin)
    outcome: Outcome = "Inconclusive"
    if ours.n >= guard.min_verdicts and theirs.n > 0:
        enough = -math.log(guard.alpha)
        is_worse = evidence.worse >= enough
        outcome = "NotWorse" if evidence.not_worse >= enough else "Worse" if is_worse else "Inconclusive"
    needed = _answers_needed(judged, ours.n, guard) if outcome == "Inconclusive" else None
    return Comparison(
        outcome=outcome,
        candidate=ours,
        stable=theirs,
        steps=tuple(StepVerdicts(step=found.step, candidate=found.candidate, stable=found.stable) for found in judged),
        evidence_worse=_number(evidence.worse),
        evidence_not_worse=_number(evidence.not_worse),
        threshold=threshold,
        answers_needed=needed,
        message=_message(outcome, ours, theirs, evidence, guard, needed),
    )


class _Step(NamedTuple):
    """What was said of both versions in one step."""

    step: int
    candidate: Tally
    stable: Tally

    @property
    def counts(self) -> _Counts:
        return _Counts(self.candidate.down, self.candidate.n, self.stable.down, self.stable.n)


class _Counts(NamedTuple):
    """Thumbs down and judged answers of both in a step; real numbers, because a forecast scales them."""

    candidate_down: float
    candidate_n: float
    stable_down: float
    stable_n: float

    def times(self, factor: float) -> _Counts:
        return _Counts(*(factor * count for count in self))


def _steps(candidate: Verdicts, stable: Verdicts, steps: int) -> list[_Step]:
    """The steps in which anything was judged, in order.

    Verdicts on answers of no step came past the route, so nobody knows beside whom they were given. Only where one of
    the versions has no others, as its server is one of 0.1.0, is everything compared as if it were one step.
    """
    if any(None in verdicts and len(verdicts) == 1 for verdicts in (candidate, stable)):
        return [_Step(0, _total(candidate.values()), _total(stable.values()))]
    indexes = sorted(index for index in {*candidate, *stable} if index is not None)
    return [
        _Step(
            step,
            _total(candidate[index] for index in joined if index in candidate),
            _total(stable[index] for index in joined if index in stable),
        )
        for step, found in groupby(indexes, key=lambda index: min(index, steps - 1))
        for joined in [list(found)]
    ]


def _total(tallies: Iterable[Tally]) -> Tally:
    found = list(tallies)
    return Tally(up=sum(tally.up for tally in found), down=sum(tally.down for tally in found))


class _Evidence(NamedTuple):
    """Natural logarithms of the two e-values: the products of those of the steps."""

    worse: float
    not_worse: float

    @classmethod
    def of(cls, steps: Iterable[_Counts], margin: float) -> _Evidence:
        worse = not_worse = 0.0
        for candidate_down, candidate_n, stable_down, stable_n in steps:
            candidate_up, stable_up = candidate_n - candidate_down, stable_n - stable_down
            # no worse: share down of the candidate + share up of the stable <= 1
            worse += _log_evidence(candidate_down, candidate_n, stable_up, stable_n, 1.0)
            # worse by the margin: share down of the stable + share up of the candidate <= 1 - margin
            not_worse += _log_evidence(stable_down, stable_n, candidate_up, candidate_n, 1.0 - margin)
        return cls(worse, not_worse)


def _log_evidence(hits_a: float, n_a: float, hits_b: float, n_b: float, total: float) -> float:
    """Log of the e-value against "rate of a + rate of b <= total": the least, over q, of betting on a > q, b > total-q.

    Both terms are convex in q, so Newton's steps inside a shrinking bracket find the minimum, and the slope times the
    width of the bracket bounds what is left: that much is subtracted, so the evidence is never overstated.
    """
    if n_a == 0 or n_b == 0:  # the threshold for the other is then the worst there is
        return _log_capital(hits_a, n_a, total)[0] + _log_capital(hits_b, n_b, total)[0]
    excess = hits_a / n_a + hits_b / n_b - total
    low, high = 0.0, total
    q = min(max(hits_a / n_a - excess * n_b / (n_a + n_b), low), high)
    for _ in range(100):
        value_a, slope_a, curve_a = _log_capital(hits_a, n_a, q)
        value_b, slope_b, curve_b = _log_capital(hits_b, n_b, total - q)
        slope, curve = slope_a - slope_b, curve_a + curve_b
        low, high = (low, q) if slope > 0 else (q, high)
        slack = abs(slope) * (high - low)
        if slack <= _PRECISION:
            break
        q -= slope / curve
        if not low < q < high:
            q = (low + high) / 2
    return value_a + value_b - slack


def _log_capital(hits: float, n: float, rate: float) -> tuple[float, float, float]:
    """Log of what 1 became by betting, `n` times, that a hit is likelier than `rate`; with its two derivatives by rate.

    A stake with odds ratio 1 + gain pays (1 + gain) / (1 + rate * gain) on a hit and 1 / (1 + rate * gain) otherwise:
    1 on average when the rate is the true one, less when the true one is lower. Stakes are added, as money is.
    """
    logs, slopes = [], []
    for log_share, effect, gain in _STAKES:
        pay = 1.0 + rate * gain
        logs.append(log_share + hits * effect - n * math.log(pay))
        slopes.append(gain / pay)
    top = max(logs)
    weight = first = second = 0.0
    for log, slope in zip(logs, slopes, strict=True):
        part = math.exp(log - top)
        weight += part
        first += part * slope
        second += part * slope * slope
    mean = first / weight
    square = second / weight
    # each term is -n * log(pay): its slope is -n * s and its curvature n * s * s, with s = gain / pay
    return top + math.log(weight), -n * mean, n * square + n * n * max(square - mean * mean, 0.0)


def _answers_needed(steps: Sequence[_Step], judged: int, guard: FeedbackGuard) -> int | None:
    """Judged answers of the candidate still missing if the rates and the split stay as seen in the latest step that
    both versions were judged in; None when not foretold."""
    latest = next((step for step in reversed(steps) if step.candidate.n and step.stable.n), None)
    if latest is None:
        return None
    others = [step.counts for step in steps if step is not latest]

    def concludes(factor: float) -> bool:
        return max(_Evidence.of([*others, latest.counts.times(factor)], guard.margin)) >= -math.log(guard.alpha)

    few, many = 1.0, 1.0
    while not concludes(many):
        few, many = many, many * 2
        if few * latest.candidate.n > _FARTHEST:
            return None
    while (many - few) > 0.02 * many:
        middle = (few + many) / 2
        few, many = (few, middle) if concludes(middle) else (middle, many)
    missing = math.ceil(many * latest.candidate.n) - latest.candidate.n
    return max(missing, guard.min_verdicts - judged, 1)


def _without_counts(candidate: Verdicts | None, stable: Verdicts | None, threshold: float) -> Comparison:
    missing = [name for name, verdicts in (("candidate", candidate), ("stable", stable)) if verdicts is None]
    return Comparison(
        outcome="Inconclusive",
        evidence_worse=1.0,
        evidence_not_worse=1.0,
        threshold=threshold,
        message=f"inconclusive: the feedback counts of the {' and the '.join(missing)} are missing; "
        "check that the feedback log or the metrics server answers",
    )


def _message(
    outcome: Outcome, candidate: Tally, stable: Tally, evidence: _Evidence, guard: FeedbackGuard, needed: int | None
) -> str:
    seen = f"{candidate.down} of {candidate.n} answers disliked against {stable.down} of {stable.n} of the stable"
    needs = f"needed {1 / guard.alpha:.3g}"
    if outcome == "Worse":
        return f"{seen}: worse (evidence {_number(evidence.worse):.2g}, {needs})"
    if outcome == "NotWorse":
        return f"{seen}: not worse by {guard.margin:.3g} or more (evidence {_number(evidence.not_worse):.2g}, {needs})"
    if candidate.n == 0:
        outlook = "no answer of the candidate was judged yet"
    elif stable.n == 0:
        outlook = "no answer of the stable was judged yet"
    elif needed is None:
        outlook = "no conclusion is in sight at these rates"
    else:
        about = round(needed, 2 - len(str(needed))) if needed >= 100 else needed  # two digits are all that it can mean
        outlook = f"about {about} more judged answers of the candidate are needed at these rates"
    return f"inconclusive: {seen}; {outlook}"


def _number(log: float) -> float:
    return math.exp(min(log, _LARGEST_LOG))
