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
from functools import cache, reduce
from itertools import groupby
from typing import NamedTuple

from tunegate.api.feedback import Tally, Verdicts
from tunegate.api.policy import FeedbackGuard
from tunegate.api.promotion import Comparison, Outcome, StepVerdicts

# A pair of stakes multiplies the odds of a thumbs down of the candidate by exp(one) and those of a thumbs up of the
# stable by exp(other); their sum is the difference that is bet on, as the logarithm of an odds ratio.
_EFFECTS = ((0.2, 0.04), (0.45, 0.2), (0.9, 0.5), (1.8, 0.18), (3.2, 0.08))
# Most is to be had when the version with fewer answers has the larger stake: the stakes are to each other as the asked
# shares of the answers, the other way round, times one of these, as neither the share nor the mood is known beforehand.
_RATIOS = ((0.2, 0.1), (0.45, 0.2), (0.75, 0.3), (1.1, 0.2), (2.0, 0.12), (5.0, 0.08))
# Stakes on one version alone, for thresholds that are far from both; and what is kept, so that not all can be lost.
_ALONE = ((0.1, 0.01), (0.3, 0.015), (0.8, 0.015), (2.0, 0.01))
_KEPT = 0.04
# Any choice is valid; this one finds 20 % against 40 % and 10 % against 20 % quickly at even and at 10/90 splits.

_LARGEST_LOG = 690.0  # evidence is kept below 1e300, so that it stays a number in JSON
_FARTHEST = 1_000_000  # judged answers of the candidate; a conclusion farther away than this is not foretold
_PRECISION = 1e-9  # of the logarithm of the evidence; rounded down, never up


def compare(
    candidate: Verdicts | None, stable: Verdicts | None, guard: FeedbackGuard, weights: Sequence[int]
) -> Comparison:
    """Compare the thumbs down of the candidate with those of the concurrent stable, at any moment, as often as liked.

    `weights` are the shares of the candidate in percent that were asked for in the steps in which the stable answers
    beside it, at least one; verdicts of later steps are compared with those of the last of them.

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
    judged = _steps(candidate, stable, weights)
    ours, theirs = _total(step.candidate for step in judged), _total(step.stable for step in judged)
    evidence = _product(_Evidence.of(step.counts, guard.margin) for step in judged)
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
    """What was said of both versions in one step, and the part of the answers that the candidate was to give in it."""

    step: int
    share: float
    candidate: Tally
    stable: Tally

    @property
    def counts(self) -> _Counts:
        return _Counts(self.share, self.candidate.down, self.candidate.n, self.stable.down, self.stable.n)


class _Counts(NamedTuple):
    """Thumbs down and judged answers of both in a step; real numbers, because a forecast scales them.

    share: the part of the answers that the candidate was to give, from 0 to 1.
    """

    share: float
    candidate_down: float
    candidate_n: float
    stable_down: float
    stable_n: float

    def times(self, factor: float) -> _Counts:
        return _Counts(self.share, *(factor * count for count in self[1:]))


def _steps(candidate: Verdicts, stable: Verdicts, weights: Sequence[int]) -> list[_Step]:
    """The steps in which anything was judged, in order.

    Verdicts on answers of no step came past the route, so nobody knows beside whom they were given. Only where the
    stable has no others, as its server is one of 0.1.0, is everything compared as if it were one step. A candidate that
    has no others was judged by those who came past the route, before its first user did.
    """
    if {None} in ({*stable}, {*candidate, *stable}):
        return [_Step(0, weights[0] / 100, _total(candidate.values()), _total(stable.values()))]
    indexes = sorted(index for index in {*candidate, *stable} if index is not None)
    return [
        _Step(
            step,
            weights[step] / 100,
            _total(candidate[index] for index in joined if index in candidate),
            _total(stable[index] for index in joined if index in stable),
        )
        for step, found in groupby(indexes, key=lambda index: min(index, len(weights) - 1))
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
    def of(cls, counts: _Counts, margin: float, enough: float = -math.inf) -> _Evidence:
        """Of one step; below `enough` only that much is sure."""
        share, candidate_down, candidate_n, stable_down, stable_n = counts
        candidate_up, stable_up = candidate_n - candidate_down, stable_n - stable_down
        # no worse: share down of the candidate + share up of the stable <= 1
        worse = _Bets(share, 1.0, candidate_down, candidate_n, stable_up, stable_n)
        # worse by the margin: share down of the stable + share up of the candidate <= 1 - margin
        not_worse = _Bets(1.0 - share, 1.0 - margin, stable_down, stable_n, candidate_up, candidate_n)
        return cls(_log_evidence(worse, enough), _log_evidence(not_worse, enough))

    def times(self, other: _Evidence) -> _Evidence:
        return _Evidence(self.worse + other.worse, self.not_worse + other.not_worse)


class _Bets(NamedTuple):
    """One step's bets against "rate of a + rate of b <= total"; `share` is the part of the answers that a gives."""

    share: float
    total: float
    hits_a: float
    n_a: float
    hits_b: float
    n_b: float


def _log_evidence(bets: _Bets, enough: float = -math.inf) -> float:
    """Log of the e-value of a step: the least, over q, that bets on a > q and b > total - q own.

    The logarithm is convex in q, so Newton's steps inside a shrinking bracket find the minimum, and the slope times the
    width of the bracket bounds what is left: that much is subtracted, so the evidence is never overstated. The search
    ends early, with a number below `enough`, once it is known that the minimum lies there.
    """
    _, total, hits_a, n_a, hits_b, n_b = bets
    if n_a == 0 or n_b == 0:  # the threshold for the other is then the worst there is
        return _log_capital(bets, total if n_a else 0.0)[0] - _PRECISION
    excess = hits_a / n_a + hits_b / n_b - total
    low, high = 0.0, total
    q = min(max(hits_a / n_a - excess * n_b / (n_a + n_b), low), high)
    for _ in range(100):
        value, slope, curve = _log_capital(bets, q)
        low, high = (low, q) if slope > 0 else (q, high)
        slack = abs(slope) * (high - low)
        if slack <= _PRECISION or value < enough:
            break
        q -= slope / curve
        if not low < q < high:
            q = (low + high) / 2
    return value - slack


def _log_capital(bets: _Bets, q: float) -> tuple[float, float, float]:
    """Log of what 1 became by betting, answer by answer, that hits of a are likelier than q and those of b than
    total - q; with its two derivatives by q.

    A stake with odds ratio 1 + gain pays (1 + gain) / (1 + rate * gain) on a hit and 1 / (1 + rate * gain) otherwise:
    1 on average when the rate is the true one, less when the true one is lower. Pairs are added, as money is.
    """
    share, total, hits_a, n_a, hits_b, n_b = bets
    logs, slopes, curves = [], [], []
    for log_part, stake_a, gain_a, stake_b, gain_b in _stakes(share):
        pay_a, pay_b = 1.0 + q * gain_a, 1.0 + (total - q) * gain_b
        logs.append(log_part + hits_a * stake_a - n_a * math.log(pay_a) + hits_b * stake_b - n_b * math.log(pay_b))
        slope_a, slope_b = gain_a / pay_a, gain_b / pay_b
        slopes.append(n_b * slope_b - n_a * slope_a)
        curves.append(n_a * slope_a * slope_a + n_b * slope_b * slope_b)
    top = max(logs)
    weight = first = second = 0.0
    for log, slope, curve in zip(logs, slopes, curves, strict=True):
        part = math.exp(log - top)
        weight += part
        first += part * slope
        second += part * (curve + slope * slope)
    mean = first / weight
    return top + math.log(weight), mean, max(second / weight - mean * mean, _PRECISION)


@cache
def _stakes(share: float) -> tuple[tuple[float, float, float, float, float], ...]:
    """The pairs: the logarithm of what is bet on each; for a, which gives `share` of the answers, and for b the stake
    and its gain."""
    paired = 1.0 - _KEPT - 2 * sum(part for _, part in _ALONE)
    pairs = [(_KEPT, 0.0, 0.0)]
    for stake, part in _ALONE:
        pairs += [(part, stake, 0.0), (part, 0.0, stake)]
    for effect, part in _EFFECTS:
        for ratio, likely in _RATIOS:
            of_a = (1.0 - share) * ratio / ((1.0 - share) * ratio + share)
            pairs.append((paired * part * likely, effect * of_a, effect * (1.0 - of_a)))
    return tuple((math.log(part), a, math.expm1(a), b, math.expm1(b)) for part, a, b in pairs)


def _product(evidence: Iterable[_Evidence]) -> _Evidence:
    return reduce(_Evidence.times, evidence, _Evidence(0.0, 0.0))


def _answers_needed(steps: Sequence[_Step], judged: int, guard: FeedbackGuard) -> int | None:
    """Judged answers of the candidate still missing if the rates and the split stay as seen in the latest step that
    both versions were judged in; None when not foretold."""
    latest = next((step for step in reversed(steps) if step.candidate.n and step.stable.n), None)
    if latest is None:
        return None
    others = _product(_Evidence.of(step.counts, guard.margin) for step in steps if step is not latest)
    enough = -math.log(guard.alpha)

    def concludes(factor: float) -> bool:
        least = enough - max(others)
        return max(_Evidence.of(latest.counts.times(factor), guard.margin, least).times(others)) >= enough

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
