"""What a report says: versions side by side, what fell, and what is not compared."""

from __future__ import annotations

import pytest

from tests.unit.report.builders import business, evaluation, exam, make
from tunegate.api.errors import UsageError
from tunegate.api.evaluation import Evaluation, Metric
from tunegate.report.contents import lettered, make_report

LAW = {"law": "+" * 40, "computer_network": "+" * 20 + "-" * 20}


def test_metrics_stand_beside_each_other_from_the_whole_to_the_subjects() -> None:
    (suite,) = make([exam(0, LAW)], [exam(1, LAW)]).suites

    assert [(row.kind, row.title) for row in suite.rows] == [
        ("headline", "accuracy"),
        ("area", "humanities"),
        ("area", "stem"),
        ("subject", "law"),
        ("subject", "computer network"),
        ("other", "accuracy micro"),
        ("other", "answered"),
    ]
    assert [metric.value for metric in suite.rows[0].values if metric] == [0.75, 0.75]


def test_what_fell_beyond_chance_comes_first() -> None:
    worse = {"law": "-" * 20 + "+" * 20, "computer_network": "+" * 19 + "-" * 21}
    report = make([exam(0, LAW), business(0, "+" * 50)], [exam(1, worse), business(1, "+" * 45 + "-" * 5)])

    assert [(fall.suite, fall.part, fall.is_shown, fall.lost) for fall in report.regressions] == [
        ("ceval", "law", True, 20),
        ("ceval", "", True, 21),
        ("shop", "", False, 5),
        ("ceval", "computer_network", False, 1),
    ]
    assert report.regressions[2].p == pytest.approx(2 / 2**5)
    assert report.regressions[2].more is not None


def test_a_subject_s_p_counts_how_many_subjects_there_are() -> None:
    """Six of six lost is p = 0.03 alone; of two subjects one of them looks so twice as often."""
    before = {"law": "+" * 40, "computer_network": "+" * 40}
    report = make([exam(0, before)], [exam(1, {**before, "law": "-" * 6 + "+" * 34})])

    whole, law, _ = report.suites[0].changes
    assert (whole.p, whole.is_shown) == (2 / 2**6, True)
    assert (law.p, law.is_shown) == (4 / 2**6, False)


def test_answers_that_changed_sides_are_kept_losses_first() -> None:
    (flips,) = make([business(0, "++-")], [business(1, "-++")]).suites[0].flips

    assert [(flip.id, flip.is_gain) for flip in flips.paired.flips] == [("q0", False), ("q2", True)]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ([], "B has no result; run: tunegate evaluate shop/run-1/checkpoint-1 --suite shop"),
        ([business(1, "---", questions="2")], "A and B were asked other questions (2 and 3 of 111111111111 and"),
        ([business(1, "--", prompts_digest="sha256:2")], "A and B were asked with other prompts"),
        ([business(1, "--", settings="bfloat16-cpu-32")], "(float32-cpu-32 and bfloat16-cpu-32), so they are not"),
    ],
    ids=["missing", "other-questions", "other-prompts", "other-numbers"],
)
def test_what_can_t_be_compared_is_said(other: list[Evaluation], said: str) -> None:
    report = make([business(0, "++")], other)

    (note,) = report.suites[0].notes
    assert said in note
    assert (report.suites[0].changes, report.regressions) == ((), ())


def test_answers_that_could_not_be_read_are_counted() -> None:
    report = make([exam(0, {"law": "++.."})], [exam(1, {"law": "++++"})])

    (note,) = report.suites[0].notes
    assert note.startswith("A gave no usable answer to 2 of 4 questions")
    assert [measured.unanswered for measured in report.suites[0].measured] == [2, 0]


def test_a_version_that_was_measured_at_a_url_is_compared() -> None:
    report = make([business(0, "++++++++")], [business(1, "--------", settings="url")])

    assert [fall.is_shown for fall in report.regressions] == [True]


def test_questions_without_labels_are_no_zero() -> None:
    found = business(0, "")
    (suite,) = make([found], [business(1, "")]).suites

    assert suite.rows[0].values[0] == Metric(name="score", n=0)
    assert suite.notes[0] == "The questions that A was asked have no labels, so nothing is scored."
    assert suite.changes == ()


def test_without_items_intervals_that_overlap_show_nothing() -> None:
    def judged(place: int, value: float, low: float, high: float) -> list[Evaluation]:
        metric = Metric(name="preference", value=value, low=low, high=high, n=50)
        return [evaluation(place, "shop.pairs", [metric], [], settings="people", topic="")]

    assert [c.is_shown for c in make(judged(0, 0.6, 0.5, 0.7), judged(1, 0.4, 0.3, 0.5)).regressions] == [False]
    assert [c.is_shown for c in make(judged(0, 0.7, 0.6, 0.8), judged(1, 0.3, 0.2, 0.4)).regressions] == [True]
    assert make(judged(0, 0.6, 0.5, 0.7)).selection[0].topic == "people"


def test_a_table_for_each_topic_has_a_line_for_each_version() -> None:
    report = make([exam(0, LAW), business(0, "+-")], [exam(1, LAW)])

    assert [(table.topic, table.columns) for table in report.selection] == [
        ("business", ("shop",)),
        ("chinese", ("ceval", "humanities", "stem")),
    ]
    assert [[metric and metric.value for metric in line] for line in report.selection[0].lines] == [[0.5], [None]]


def test_it_ends_at_the_alphabet() -> None:
    with pytest.raises(UsageError, match="at most 26 versions"):
        lettered(27)
    assert make_report([], [], make([]).leaks).suites == ()
