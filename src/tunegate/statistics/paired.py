"""Two versions compared question by question: the difference of a metric, and the interval that holds it.

Questions differ far more than versions do, so an interval of what changed at each of them is much narrower than one
made of both versions' own.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from tunegate.api.evaluation import Average, Evaluation

Z95 = 1.959963984540054
_SAME = 1e-6


@dataclass(frozen=True)
class Difference:
    """`value`: of the metric, after less before, over `n` questions of which `up` rose and `down` fell, with its 95 %
    interval."""

    n: int
    up: int
    down: int
    value: float
    low: float
    high: float


def paired(before: Evaluation, after: Evaluation, metric: str) -> Difference | str:
    """How `metric` changed; or, after "both", why that can't be told question by question."""
    if (before.suite_digest, before.prompts_digest) != (after.suite_digest, after.prompts_digest):
        return "were not asked the same questions with the same prompts"
    first, then = (_scores(result, metric) for result in (before, after))
    if not first or first.keys() != then.keys():
        return f"have no {metric} of each of the same questions"
    groups: dict[str, list[float]] = defaultdict(list)
    for place, old in first.items():
        groups[place.subject].append(then[place] - old)
    found = _difference(list(groups.values()))
    told = [result.metric(metric) for result in (before, after)]
    values = [each.value for each in told if each and each.value is not None]
    if len(values) < 2 or abs(values[1] - values[0] - found.value) > _SAME:
        return f"have a {metric} that is no mean of its questions' scores"
    return found


class _Place(NamedTuple):
    """A question. subject: what it counts in, where each subject counts the same."""

    subject: str
    question: str


def _scores(result: Evaluation, metric: str) -> dict[_Place, float]:
    """What the metric is the mean of: the score that it is named after, or of one subject as in `accuracy/law`."""
    average = result.averages.get(metric)
    if average is None:
        score, _, subject = metric.partition("/")
        average = Average(score=score, subjects=(subject,) if subject else ())
    found = {}
    for record in result.records:
        subject = record.id.partition("/")[0]
        if average.score in record.scores and (not average.subjects or subject in average.subjects):
            found[_Place(subject if average.is_macro else "", record.id)] = record.scores[average.score]
    return found


def _difference(groups: Sequence[Sequence[float]]) -> Difference:
    """The mean of the groups' means, with an interval.

    Two questions are added to each group, of which half a one got better and half a one worse (Agresti and Min, Simple
    improved confidence intervals for comparing matched proportions, 2005): the interval then holds at few questions,
    and is no point where none changed. Scores between right and wrong count by their squares.
    """
    centers, variance = [], 0.0
    for changes in groups:
        n = len(changes) + 2
        centers.append(sum(changes) / n)
        variance += ((sum(change**2 for change in changes) + 1) / n - centers[-1] ** 2) / n
    center, half = fmean(centers), Z95 * math.sqrt(variance) / len(groups)
    every = [change for changes in groups for change in changes]
    return Difference(
        n=len(every),
        up=sum(change > 0 for change in every),
        down=sum(change < 0 for change in every),
        value=fmean(fmean(changes) for changes in groups),
        low=max(-1.0, center - half),
        high=min(1.0, center + half),
    )
