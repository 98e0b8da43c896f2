"""What a local platform's records add up to: one row for each version, for the table and for quickstart.json."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tunegate.api.evaluation import Evaluation
from tunegate.api.feedback import Tally
from tunegate.api.promotion import Decision, GateResult, Promotion
from tunegate.api.resource import Resource
from tunegate.api.versions import ModelVersion, short


class Score(Resource, frozen=True, kw_only=True):
    """A suite's leading metric with its 95 % interval (1.96 standard errors to each side, within 0..1)."""

    suite: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    n: int


class VersionReport(Resource, frozen=True, kw_only=True):
    name: str
    digest: str
    about: str
    scores: tuple[Score, ...]
    gates: tuple[GateResult, ...] = ()
    feedback: Tally | None = None
    stable_feedback: Tally | None = None
    decision: Decision | None = None


class Answer(Resource, frozen=True, kw_only=True):
    """A question put to the URL, and what the version behind it said."""

    system: str
    question: str
    answer: str
    digest: str


class Report(Resource, frozen=True, kw_only=True):
    schema: str = "tunegate.io/quickstart/v1"
    seconds: float
    stable: str
    versions: tuple[VersionReport, ...]
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
        decision=status.decision if status else None,
    )


def render(report: Report) -> str:
    """The report as a table and the reasons under it, for people."""
    suites = [score.suite for score in report.versions[0].scores]
    table = Table("version", "digest", *suites, "gates", "thumbs down", "decision", box=SIMPLE_HEAD)
    for version in report.versions:
        live = " ← live" if version.digest == report.stable else ""
        table.add_row(
            version.name,
            short(version.digest),
            *(_show_score(version, suite) for suite in suites),
            "\n".join(map(_show_gate, version.gates)) or "–",
            _show_feedback(version),
            (version.decision.outcome if version.decision else "stable at first") + live,
        )
    console = Console(width=max(120, Console().width), highlight=False)
    with console.capture() as text:
        console.print(table)
        for version in report.versions:
            why = version.decision.message if version.decision else "the base model"
            console.print(f"[bold]{version.name}[/] ({version.about}): {why}", soft_wrap=True)
    return text.get()


def _score(evaluation: Evaluation) -> Score:
    metric = evaluation.metrics[0]
    low = high = None
    if metric.value is not None and metric.stderr is not None and math.isfinite(metric.stderr):
        low, high = max(0.0, metric.value - 1.96 * metric.stderr), min(1.0, metric.value + 1.96 * metric.stderr)
    return Score(suite=evaluation.suite, metric=metric.name, value=metric.value, low=low, high=high, n=metric.n)


def _show_score(version: VersionReport, suite: str) -> str:
    score = next((score for score in version.scores if score.suite == suite), None)
    if score is None or score.value is None:
        return "–"
    interval = "" if score.low is None or score.high is None else f" \\[{score.low:.2f}, {score.high:.2f}]"
    return f"{score.value:.2f}{interval}"


def _show_gate(gate: GateResult) -> str:
    sign = {True: "✓", False: "✗", None: "?"}[gate.passed]
    return f"{sign} {gate.suite} {gate.metric} {gate.bound} {gate.threshold:g}"


def _show_feedback(version: VersionReport) -> str:
    """Of the candidate and, for comparison, of the stable at the same time."""
    if version.feedback is None:
        return "never shown"
    stable = version.stable_feedback
    beside = f"\n(stable: {stable.down} of {stable.n})" if stable else ""
    return f"{version.feedback.down} of {version.feedback.n}{beside}"
