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

from tunegate.api.evaluation import Average, Evaluation, Record
from tunegate.statistics.clusters import Z95, effective

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
    average = after.averages.get(metric) or _named_after(metric)
    first, then = (_records(result, average) for result in (before, after))
    if not first or first.keys() != then.keys():
        return f"have no {metric} of each of the same questions"
    groups: dict[str, list[_Change]] = defaultdict(list)
    for question, old in first.items():
        change = then[question].scores[average.score] - old.scores[average.score]
        groups[_subject(old) if average.is_macro else ""].append(_Change(change, old.cluster))
    found = _difference(list(groups.values()))
    told = [result.metric(metric) for result in (before, after)]
    values = [each.value for each in told if each and each.value is not None]
    if len(values) < 2 or abs(values[1] - values[0] - found.value) > _SAME:
        return f"have a {metric} that is no mean of its questions' scores"
    return found


class _Change(NamedTuple):
    """By how much the score of a question rose, and what it belongs to."""

    value: float
    cluster: str


def _named_after(metric: str) -> Average:
    """A score of all questions, or of one subject as in `accuracy/law`."""
    score, _, subject = metric.partition("/")
    return Average(score=score, subjects=(subject,) if subject else ())


def _records(result: Evaluation, average: Average) -> dict[str, Record]:
    """What the metric is the mean of, by question."""
    scored = (record for record in result.records if average.score in record.scores)
    return {record.id: record for record in scored if not average.subjects or _subject(record) in average.subjects}


def _subject(record: Record) -> str:
    return record.id.partition("/")[0]


def _difference(groups: Sequence[Sequence[_Change]]) -> Difference:
    """The mean of the groups' means, with an interval.

    Two questions are added, of which one got better and one worse (Agresti and Min, Simple improved confidence
    intervals for comparing matched proportions, 2005): the interval then holds at few questions, and is no point where
    none changed. They are two in all: two for each of 52 subjects would be as many as the questions of a small exam.
    Scores between right and wrong count by their squares, groups by their weight in the mean, as if all were one of `n`
    questions, and questions of clusters as the independent ones that they are worth.
    """
    worth = [effective([change.value for change in each], [change.cluster for change in each]) for each in groups]
    weights = [1 / each for each in worth]
    n = len(groups) ** 2 / sum(weights)
    value = fmean(fmean(change.value for change in changes) for changes in groups)
    spread = fmean([fmean((change.value - value) ** 2 for change in changes) for changes in groups], weights)
    square = spread + value**2
    center = n * value / (n + 2)
    half = Z95 * math.sqrt(((n * square + 1) / (n + 2) - center**2) / (n + 2))
    every = [change.value for changes in groups for change in changes]
    return Difference(
        n=len(every),
        up=sum(change > 0 for change in every),
        down=sum(change < 0 for change in every),
        value=value,
        low=max(-1.0, center - half),
        high=min(1.0, center + half),
    )
