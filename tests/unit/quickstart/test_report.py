"""What people read at the end of a quickstart."""

from __future__ import annotations

import msgspec
import pytest

from tests.builders import at, make_evaluation, make_version
from tunegate.api.evaluation import Evaluation, Metric, Record
from tunegate.api.feedback import Tally
from tunegate.api.promotion import Comparison, Decision, GateResult, Promotion, PromotionStatus
from tunegate.quickstart.knowledge import compare
from tunegate.quickstart.report import Answer, Report, render, report_decision, report_version

VERSION = make_version("run-1")
GATE = GateResult(
    suite="quality", metric="score", bound="min", threshold=0.5, passed=True, message="quality score 0.90 is enough"
)
COMPARISON = Comparison(
    outcome="Worse",
    candidate=Tally(up=1, down=8),
    stable=Tally(up=20, down=1),
    evidence_worse=99.0,
    evidence_not_worse=0.0,
    threshold=20.0,
    message="8 of 9 answers disliked",
)


@pytest.fixture
def promotion() -> Promotion:
    decision = Decision(outcome="RolledBack", reason="FeedbackWorse", message=COMPARISON.message, time=at(9))
    status = PromotionStatus(phase="RolledBack", gates=(GATE,), comparison=COMPARISON, decision=decision)
    return Promotion(name="p", created=at(0), candidate=VERSION, status=status)


def make_report(promotion: Promotion) -> Report:
    base = make_version("base", model="base", step=0)
    evaluation = make_evaluation(VERSION, score=0.9)
    return Report(
        seconds=1.0,
        stable=base.digest,
        versions=(
            report_version(base, "as it came", [make_evaluation(base, score=0.1)], None),
            report_version(VERSION, "tuned", [evaluation], promotion),
        ),
        decisions=(report_decision(promotion),),
        sample=Answer(question="?", answer="!", digest=base.digest),
    )


def test_a_rollback_says_after_how_many_answers(promotion: Promotion) -> None:
    decision = report_decision(promotion)
    assert (decision.outcome, decision.reason, decision.answers) == ("RolledBack", "FeedbackWorse", 9)


def test_a_candidate_nobody_saw_has_no_answers(promotion: Promotion) -> None:
    unseen = msgspec.structs.replace(promotion, status=msgspec.structs.replace(promotion.status, comparison=None))
    assert report_decision(unseen).answers is None


def test_the_table_names_scores_counts_gates_and_reasons(promotion: Promotion) -> None:
    text = render(make_report(promotion))
    for part in (
        "0.90 [0.88, 0.92]",
        "8 of 9",
        "1 of 21",
        "✓ gate: quality score 0.90",
        "→ RolledBack: 8 of 9",
        "← live",
    ):
        assert part in text


def test_the_table_is_no_wider_than_it_promises(promotion: Promotion) -> None:
    table = render(make_report(promotion)).splitlines()[:8]
    assert max(map(len, table)) <= 124


def test_what_the_catalogue_changed_is_counted(promotion: Promotion) -> None:
    def measured(*scores: tuple[int, int]) -> Evaluation:
        records = tuple(
            Record(id=str(n), prompt="?", expected="", answer="!", scores={"contains": right, "grounded": true})
            for n, (right, true) in enumerate(scores)
        )
        return msgspec.structs.replace(make_evaluation(VERSION), records=records)

    found = compare(measured((0, 0), (0, 0), (1, 1)), measured((1, 1), (1, 1), (1, 0)))
    assert (found.without.right, found.without.invented) == (1, 2)
    assert (found.grounded.right, found.grounded.invented) == (3, 1)
    text = render(msgspec.structs.replace(make_report(promotion), grounding=found))
    assert (
        "on 3 questions about products: without the catalogue 1 right and 2 with an invented number, with it 3" in text
    )


@pytest.mark.parametrize(
    "metric",
    [
        pytest.param(Metric(name="score", value=None, stderr=None, n=0), id="no-value"),
        pytest.param(Metric(name="score", value=0.5, stderr=None, n=1), id="no-error"),
    ],
)
def test_a_score_without_its_numbers_has_no_interval(metric: Metric) -> None:
    evaluation: Evaluation = msgspec.structs.replace(make_evaluation(VERSION), metrics=(metric,))
    score = report_version(VERSION, "", [evaluation], None).scores[0]
    assert score.low is None
    assert score.high is None
