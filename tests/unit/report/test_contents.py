"""What a report says: versions side by side, what fell, and what is not compared."""

from __future__ import annotations

import pytest

from tests.unit.report.builders import business, evaluation, exam, make
from tunegate.api.errors import UsageError
from tunegate.api.evaluation import Evaluation, Metric
from tunegate.report.contents import kind_of, lettered, make_report

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


@pytest.mark.parametrize("name", ["agreement/tone", "contradicted/tone", "longer_wins/tone"])
def test_what_is_said_of_reviewers_and_judges_is_no_subject(name: str) -> None:
    assert (kind_of(name, 1), kind_of("accuracy/law", 1)) == ("other", "subject")


def test_what_fell_beyond_chance_comes_first() -> None:
    worse = {"law": "-" * 20 + "+" * 20, "computer_network": "+" * 19 + "-" * 21}
    report = make([exam(0, LAW), business(0, "+" * 50)], [exam(1, worse), business(1, "+" * 45 + "-" * 5)])

    assert [(fall.suite, fall.part, fall.is_shown, fall.lost) for fall in report.regressions] == [
        ("ceval", "humanities", True, 20),
        ("ceval", "law", True, 20),
        ("ceval", "", True, 21),
        ("shop", "", False, 5),
        ("ceval", "stem", False, 1),
        ("ceval", "computer_network", False, 1),
    ]
    shop = report.regressions[3]
    assert shop.p == pytest.approx(2 / 2**5)
    assert shop.more is not None


def test_every_change_has_its_interval_question_by_question() -> None:
    """Of the metric itself: C-Eval's is the mean of its subjects, however many questions each has."""
    before, after = (
        {"law": "+" * 40, "computer_network": "+" * 10},
        {"law": "+" * 30 + "-" * 10, "computer_network": "+" * 10},
    )
    whole, humanities, stem, law, network = make([exam(0, before)], [exam(1, after)]).suites[0].changes

    assert [each.part for each in (humanities, stem, law, network)] == ["humanities", "stem", "law", "computer_network"]
    assert whole.difference == pytest.approx(-0.125)
    for change in (whole, humanities, law):
        assert change.low is not None
        assert change.high is not None
        assert change.low < change.difference < change.high < 0
    assert (humanities.low, humanities.lost) == (law.low, 10)
    assert (stem.difference, stem.lost, stem.low) == (0, 0, -(stem.high or 0))


def test_an_area_of_which_nothing_is_kept_is_compared_by_its_intervals() -> None:
    """As 0.1.0 wrote it."""
    before, after = exam(0, {"law": "+" * 40}, averages={}), exam(1, {"law": "-" * 40}, averages={})
    humanities = make([before], [after]).suites[0].changes[1]

    assert (humanities.part, humanities.p, humanities.low, humanities.is_shown) == ("humanities", None, None, True)


def test_a_subject_s_p_counts_how_many_subjects_there_are() -> None:
    """Six of six lost is p = 0.03 alone; of two subjects one of them looks so twice as often."""
    before = {"law": "+" * 40, "computer_network": "+" * 40}
    report = make([exam(0, before)], [exam(1, {**before, "law": "-" * 6 + "+" * 34})])

    whole, _, _, law, _ = report.suites[0].changes
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
