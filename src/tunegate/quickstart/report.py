"""What a local platform's records add up to: one row for each version, for the table and for quickstart.json."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tunegate.api.codec import Resource
from tunegate.api.digest import short
from tunegate.api.evaluation import Evaluation
from tunegate.api.feedback import Tally
from tunegate.api.promotion import Ending, GateResult, Promotion
from tunegate.api.versions import ModelVersion
from tunegate.quickstart.knowledge import Grounding
from tunegate.statistics.paired import paired

if TYPE_CHECKING:
    from tunegate.quickstart.learning import Lesson


class Score(Resource, frozen=True, kw_only=True):
    """A suite's leading metric with its 95 % interval (1.96 standard errors to each side, within 0..1)."""

    suite: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    n: int

    def text(self) -> str:
        """For a table of rich, to which brackets are markup."""
        if self.value is None:
            return "–"
        interval = "" if self.low is None or self.high is None else f" \\[{self.low:.2f}, {self.high:.2f}]"
        return f"{self.value:.2f}{interval}"


class VersionReport(Resource, frozen=True, kw_only=True):
    name: str
    digest: str
    about: str
    scores: tuple[Score, ...]
    gates: tuple[GateResult, ...] = ()
    feedback: Tally | None = None
    stable_feedback: Tally | None = None


class VersionDecision(Resource, frozen=True, kw_only=True):
    """How a candidate ended, why, and after how many judged answers of it (None: no user ever saw it)."""

    version: str
    digest: str
    outcome: Ending
    reason: str
    message: str
    answers: int | None


class Answer(Resource, frozen=True, kw_only=True):
    """A question put to the URL, and what the version behind it said."""

    question: str
    answer: str
    digest: str


class Chapter(Resource, frozen=True, kw_only=True):
    """A part of the story, and how many seconds it took."""

    name: str
    seconds: float


class Change(Resource, frozen=True, kw_only=True):
    """The difference of a metric, question by question, with its 95 % interval."""

    value: float
    low: float
    high: float


class Learning(Resource, frozen=True, kw_only=True):
    """What users corrected, and the same suite before and after a version learned it.

    disliked: answers looked at. corrected: those that users said better, of which `leaked` were left out because the
    suite asks them. old: dialogues of before in the same corpus. difference: None where the two can't be compared.
    """

    disliked: int
    corrected: int
    leaked: int
    old: int
    before: Score
    after: Score
    difference: Change | None


class Report(Resource, frozen=True, kw_only=True):
    schema: str = "tunegate.io/quickstart/v1"
    seconds: float
    chapters: tuple[Chapter, ...] = ()
    stable: str
    versions: tuple[VersionReport, ...]
    decisions: tuple[VersionDecision, ...]
    learning: Learning | None = None
    grounding: Grounding | None = None
    sample: Answer


def report_version(
    version: ModelVersion, about: str, evaluations: Sequence[Evaluation], promotion: Promotion | None
) -> VersionReport:
    """One version with all that was measured and decided about it."""
    status = promotion.status if promotion else None
    comparison = status.comparison if status else None
    return VersionReport(
        name=version.name,
        digest=version.digest,
        about=about,
        scores=tuple(_score(evaluation) for evaluation in evaluations),
        gates=status.gates if status else (),
        feedback=comparison.candidate if comparison else None,
        stable_feedback=comparison.stable if comparison else None,
    )


def report_learning(lesson: Lesson, before: Evaluation, after: Evaluation) -> Learning:
    """By two evaluations on one suite, before and after."""
    change = paired(before, after, before.metrics[0].name)
    return Learning(
        disliked=lesson.disliked,
        corrected=lesson.corrected,
        leaked=lesson.leaked,
        old=lesson.old,
        before=_score(before),
        after=_score(after),
        difference=None if isinstance(change, str) else Change(value=change.value, low=change.low, high=change.high),
    )


def report_decision(promotion: Promotion) -> VersionDecision:
    """The end of one promotion that has ended."""
    decision, comparison = promotion.status.decision, promotion.status.comparison
    assert decision is not None
    return VersionDecision(
        version=promotion.candidate.name,
        digest=promotion.candidate.digest,
        outcome=decision.outcome,
        reason=decision.reason,
        message=decision.message,
        answers=comparison.candidate.n if comparison and comparison.candidate else None,
    )


def render(report: Report) -> str:
    """The report for people: a table of what was measured, and under it what was decided and why."""
    suites = [score.suite for score in report.versions[0].scores]
    ended = {decision.digest: decision for decision in report.decisions}
    table = Table("version", "digest", *suites, "thumbs down", "of the stable", "decision", box=SIMPLE_HEAD)
    for version in report.versions:
        decision = ended.get(version.digest)
        scores = {score.suite: score.text() for score in version.scores}
        live = " ← live" if version.digest == report.stable else ""
        table.add_row(
            version.name.replace("/", "/\n", 1),
            short(version.digest),
            *(scores.get(suite, "–") for suite in suites),
            _show_tally(version.feedback),
            _show_tally(version.stable_feedback),
            (decision.outcome if decision else "stable at first") + live,
        )
    console = Console(width=max(124, Console().width), highlight=False)
    with console.capture() as text:
        console.print(table)
        for version in report.versions:
            console.print(f"[bold]{version.name}[/], {version.about}", soft_wrap=True)
            for gate in version.gates:
                console.print(f"  {_SIGNS[gate.passed]} gate: {gate.message}", soft_wrap=True)
            if decision := ended.get(version.digest):
                console.print(f"  → {decision.outcome}: {decision.message}", soft_wrap=True)
        if report.learning:
            console.print(_show_learning(report.learning), soft_wrap=True)
        if report.grounding:
            console.print(_show_grounding(report.grounding), soft_wrap=True)
        chapters = ", ".join(f"{chapter.name} {chapter.seconds:.0f} s" for chapter in report.chapters)
        console.print(f"{report.seconds:.0f} s: {chapters}", soft_wrap=True)
    return text.get()


def _score(evaluation: Evaluation) -> Score:
    metric = evaluation.metrics[0]
    low = high = None
    if metric.value is not None and metric.stderr is not None and math.isfinite(metric.stderr):
        low, high = max(0.0, metric.value - 1.96 * metric.stderr), min(1.0, metric.value + 1.96 * metric.stderr)
    return Score(suite=evaluation.suite, metric=metric.name, value=metric.value, low=low, high=high, n=metric.n)


def _show_grounding(found: Grounding) -> str:
    sides = (("without the catalogue", found.without), ("with it", found.grounded))
    said = [f"{words} {side.right} right and {side.invented} with an invented number" for words, side in sides]
    return f"The same weights on {found.questions} questions about products: {', '.join(said)}."


def _show_learning(found: Learning) -> str:
    left_out = f", {found.leaked} left out because a suite asks them" if found.leaked else ""
    said = [
        f"What users corrected: {found.corrected} of {found.disliked} disliked answers{left_out}, with {found.old} "
        f"dialogues of before. {found.before.suite}: {found.before.text()} before, {found.after.text()} after"
    ]
    if change := found.difference:
        said.append(f"{change.value:+.2f} \\[{change.low:+.2f}, {change.high:+.2f}] question by question")
    return f"{', '.join(said)}."


def _show_tally(tally: Tally | None) -> str:
    return f"{tally.down} of {tally.n}" if tally else "–"


_SIGNS = {True: "✓", False: "✗", None: "?"}
