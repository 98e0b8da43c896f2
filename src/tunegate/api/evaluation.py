"""What an evaluation says: one result for one version and one suite."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Literal

from tunegate.api.codec import Document, Resource, prepare

BY_PEOPLE, BY_JUDGE = (".people", ".pairs"), (".judge", ".judge-pairs")
"""How the names of suites end whose answers people judge, and a judge model: single ones, and pairs."""


_NAMED = 5  # reviewers in a sentence


def is_by_people(suite: str) -> bool:
    """Whether people judge it, on a page of `tunegate review`; by its name."""
    return suite.endswith(BY_PEOPLE)


def is_by_judge(suite: str) -> bool:
    """Whether a judge model does, which `tunegate review judge` asks; by its name."""
    return suite.endswith(BY_JUDGE)


def is_reviewed(suite: str) -> bool:
    """Whether it is the result of a review, so that no Job could measure it."""
    return is_by_people(suite) or is_by_judge(suite)


class Metric(Resource, frozen=True, kw_only=True):
    """A number with its standard error over `n` items. `value` is None when it could not be measured.

    low, high: the interval that holds the number with a chance of 95 %.
    clusters: how many the items are of, where several are of one: they then say less than as many others would.
    """

    name: str
    value: float | None = None
    stderr: float | None = None
    low: float | None = None
    high: float | None = None
    n: int
    clusters: int | None = None
    higher_is_better: bool = True


class Record(Resource, frozen=True, kw_only=True):
    """One question: what was asked, expected and answered, and each rule's score in 0..1.

    cluster: what the question belongs to, such as a passage; empty where it stands alone.
    expected: empty where it is not known. output: what the answer was read out of, where the model wrote more.
    """

    id: str
    prompt: str
    expected: str
    answer: str
    output: str = ""
    cluster: str = ""
    scores: dict[str, float]


class Average(Resource, frozen=True, kw_only=True):
    """What a metric is the mean of: the records' `score`, of these subjects or, where none are named, of all.

    is_macro: each subject counts the same, however many questions it has. Records' ids begin with their subject and /.
    """

    score: str
    subjects: tuple[str, ...] = ()
    is_macro: bool = False


class Probe(Resource, frozen=True, kw_only=True):
    """What tells these weights from others, wherever they compute: a short text as tokens, and how likely they find
    each of its tokens after those before it, from the second one on, as a natural logarithm."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]


class Evaluation(Document, frozen=True, kw_only=True):
    """The result of one suite on one version, by digest: the bytes that were measured.

    settings: what the answers depend on besides, such as `float32-cpu-32`; `url` where a server was asked.
    prompts_digest: of all that the model was given, where the suite fixes it; empty for business suites.
    topic: the table that a report shows the suite in, such as `chinese`; empty where that is not known.
    averages: of the metrics that are more than the plain mean of the records' score that they are named after.
    completed, total: questions that have an answer, and that were to be asked; None in those that 0.1.0 wrote.
    tokens_read, tokens_written: of the questions and answers that took `seconds`, of the last attempt where there were
    several; None where they were not counted.
    probes: the same few for every version, of weights that were loaded to be measured; by them a server sees whether an
    engine answers with these weights. None where a server was asked, or a soft prompt comes before every text.
    """

    added: ClassVar[tuple[str, ...]] = ("probes",)

    schema: Literal["tunegate.io/evaluation/v1"] = "tunegate.io/evaluation/v1"
    version: str
    digest: str
    suite: str
    suite_digest: str
    prompts_digest: str = ""
    settings: str = ""
    topic: str = ""
    tokens_read: int | None = None
    tokens_written: int | None = None
    completed: int | None = None
    total: int | None = None
    metrics: tuple[Metric, ...]
    averages: dict[str, Average] = {}
    records: tuple[Record, ...]
    probes: tuple[Probe, ...] = ()
    code_version: str
    started: datetime
    seconds: float

    def metric(self, name: str) -> Metric | None:
        return next((metric for metric in self.metrics if metric.name == name), None)


class ReviewProgress(Document, frozen=True, kw_only=True):
    """How far people are with the answers of one version, by digest.

    items: what they are to judge, and marked: how much of it somebody has judged. judgements, needed: the same where an
    item that several are to judge counts for each. reviewers: how many items each has judged, by name.
    """

    schema: Literal["tunegate.io/review-progress/v1"] = "tunegate.io/review-progress/v1"
    digest: str
    suite: str
    items: int
    marked: int
    judgements: int
    needed: int
    reviewers: dict[str, int] = {}

    def __str__(self) -> str:
        """`12 of 50 items marked, by Li (9), Ana (4); 13 of 60 judgements`: who did most come first."""
        people = sorted(self.reviewers, key=lambda name: (-self.reviewers[name], name))
        named = [f"{name} ({self.reviewers[name]})" for name in people[:_NAMED]]
        others = f" and {len(people) - _NAMED} others" if len(people) > _NAMED else ""
        by = f"by {', '.join(named)}{others}" if people else "by nobody yet"
        return f"{self.marked} of {self.items} items marked, {by}; {self.judgements} of {self.needed} judgements"


prepare(Evaluation, ReviewProgress)
