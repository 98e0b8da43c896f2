"""From marks to the results that a gate reads."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

import msgspec
import pytest

from tests.builders import START
from tests.unit.review.builders import CRITERIA, DIGESTS, build_review, make_mark
from tunegate.api.errors import EvaluationError
from tunegate.api.evaluation import Evaluation, Metric
from tunegate.api.policy import Gate
from tunegate.evaluation.paired import compare_items, mcnemar
from tunegate.evaluation.scores import wilson
from tunegate.promotion.gates import check_gate
from tunegate.review.items import Review
from tunegate.review.marks import Mark, latest
from tunegate.review.results import Comment, agreement, comments, results

LATER = START + timedelta(hours=1)


def metric(result: Evaluation, name: str) -> Metric:
    found = result.metric(name)
    assert found is not None, [known.name for known in result.metrics]
    return found


def judge(review: Review, reviewer: str, **given: list[int] | list[str]) -> list[Mark]:
    """What a reviewer gives the judged items, in the order of the review, by each criterion."""
    return [
        make_mark(digest, reviewer, criterion, value)
        for criterion, values in given.items()
        for digest, value in zip(review.judged, values, strict=True)
    ]


def test_single_answers_give_shares_that_pass_and_means() -> None:
    review = build_review(questions=4, share=0)
    marks = latest(judge(review, "li", correct=[1, 1, 1, 0], tone=[5, 4, 3, 5]))
    (result,) = results(review, marks, LATER)

    assert (result.suite, result.suite_digest, result.digest, result.settings) == (
        "shop.people",
        review.digest,
        DIGESTS[0],
        "people",
    )
    score = metric(result, "score")
    assert (score.value, (score.low, score.high), score.n) == (0.5, wilson(2, 4), 4)
    assert result.metrics[0] == score
    assert (metric(result, "correct").value, metric(result, "tone").value) == (0.75, 0.75)
    assert metric(result, "tone_mean").value == 4.25
    assert [record.scores["score"] for record in result.records] == [1, 1, 0, 0]
    assert (result.started, result.seconds) == (START, 12)


@pytest.mark.parametrize("mode", ["single", "pairs"])
def test_questions_of_one_conversation_count_as_such_for_people_too(mode: Literal["single", "pairs"]) -> None:
    review = build_review(mode, versions=1 if mode == "single" else 2, questions=8, share=0)
    items = tuple(msgspec.structs.replace(item, cluster=str(n // 4)) for n, item in enumerate(review.items))
    review = msgspec.structs.replace(review, items=items)
    given = {c.name: [1] * 8 if mode == "single" else ["first"] * 8 for c in review.criteria}
    result = results(review, latest(judge(review, "li", **given)), LATER)[0]

    assert (result.metrics[0].n, result.metrics[0].clusters) == (8, 2)
    assert [record.cluster for record in result.records] == ["0"] * 4 + ["1"] * 4


@pytest.mark.parametrize("versions", [2, 3])
def test_pairs_of_one_conversation_win_as_one(versions: int) -> None:
    """Four of five conversations are won, each with four questions: that is no more than four wins of five."""
    review = build_review("pairs", versions=versions, questions=20, share=0, criteria=())
    number = {question: n for n, question in enumerate(dict.fromkeys(item.question for item in review.items))}
    items = [msgspec.structs.replace(item, cluster=str(number[item.question] // 4)) for item in review.items]
    together = msgspec.structs.replace(review, items=tuple(items))
    given = ["first" if number[item.question] < 16 else "second" for item in review.judged.values()]
    alone, clustered = (
        results(each, latest(judge(each, "li", preference=given)), LATER)[0] for each in (review, together)
    )
    for name in ("preference_wins", "preference_both_bad") if versions == 2 else ("preference_strength",):
        narrow, wide = metric(alone, name), metric(clustered, name)
        assert (wide.value, wide.n, wide.clusters) == (narrow.value, narrow.n, 5)
        if narrow.low is not None and wide.low is not None:
            assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)
    if versions == 2:
        assert (metric(alone, "preference_p").value, metric(clustered, "preference_p").value) == (
            mcnemar(16, 4),
            mcnemar(4, 1),
        )


def test_an_answer_that_several_judged_passes_by_the_mean() -> None:
    review = build_review(questions=2, share=1)
    marks = latest(judge(review, "li", correct=[1, 1], tone=[5, 4]) + judge(review, "ana", correct=[1, 0], tone=[3, 5]))
    (result,) = results(review, marks, LATER)
    assert [record.scores for record in result.records] == [
        {"score": 1, "correct": 1, "tone": 1},
        {"score": 0, "correct": 0, "tone": 1},
    ]


def test_two_versions_are_compared_question_by_question() -> None:
    review = build_review(versions=2, questions=3, share=0)  # item by item: both answers to a question, then the next
    marks = latest(judge(review, "li", correct=[0, 1, 0, 1, 1, 1], tone=[5] * 6))
    before, after = results(review, marks, LATER)
    paired = compare_items(before, after)
    assert paired is not None
    assert (paired.gained, paired.lost, paired.n) == (2, 0, 3)


def test_pairs_give_wins_with_ties_as_half_and_a_sign_test() -> None:
    review = build_review("pairs", versions=2, questions=10, same=2, share=0, criteria=())
    values = ["second"] * 5 + ["first", "tie", "both_bad"]
    stable, candidate = results(review, latest(judge(review, "li", preference=values)), LATER)

    assert candidate.suite == "shop.pairs"
    assert metric(candidate, "preference").value == pytest.approx((5 + 4 * 0.5) / 10)
    assert metric(stable, "preference").value == pytest.approx((1 + 4 * 0.5) / 10)
    wins = metric(candidate, "preference_wins")
    assert (wins.value, (wins.low, wins.high), wins.n) == (5 / 6, wilson(5, 6), 6)
    assert (metric(candidate, "preference_p").value, metric(stable, "preference_p").value) == (mcnemar(5, 1),) * 2
    bad = metric(candidate, "preference_both_bad")
    assert (bad.value, bad.n, bad.higher_is_better) == (1 / 8, 8, False)
    assert candidate.records[0].scores == {"preference": 0.5}
    assert candidate.records[0].answer == "$30, 0"


def test_three_versions_are_ranked() -> None:
    review = build_review("pairs", versions=3, questions=12, share=0, criteria=())
    wins = {(0, 1): ["second"] * 8 + ["first"] * 4, (0, 2): ["second"] * 9 + ["first"] * 3, (1, 2): ["tie"] * 12}
    left = {pair: iter(values) for pair, values in wins.items()}
    values = [next(left[item.answers[0].version, item.answers[1].version]) for item in review.judged.values()]
    first, second, third = results(review, latest(judge(review, "li", preference=values)), LATER)

    strength = [metric(result, "preference_strength") for result in (first, second, third)]
    assert [found.value is not None and found.value > 0 for found in strength] == [False, True, True]
    assert sum(found.value or 0 for found in strength) == pytest.approx(0)
    assert all(found.low is not None and found.high is not None for found in strength)
    assert all((found.low or 0) < (found.value or 0) < (found.high or 0) for found in strength)
    assert metric(third, "preference").value == pytest.approx((9 + 6) / 24)


def test_agreement_is_said_by_criterion_over_what_several_judged() -> None:
    review = build_review(questions=4, share=1)
    marks = latest(
        judge(review, "li", correct=[1, 1, 0, 0], tone=[1, 2, 3, 4])
        + judge(review, "ana", correct=[1, 0, 1, 0], tone=[1, 2, 3, 4])
    )
    correct, tone = agreement(review, marks)
    assert (tone.alpha, tone.n, tone.kappas[0].value, tone.kappas[0].reviewers) == (1, 4, 1, ("ana", "li"))
    assert (correct.alpha, correct.kappas[0].value) == (pytest.approx(0.125), 0)
    (result,) = results(review, marks, LATER)
    assert metric(result, "agreement/correct") == Metric(name="agreement/correct", value=correct.alpha, n=4)


def test_an_incomplete_review_gives_no_result() -> None:
    review = build_review(questions=10, share=0.2)
    marks = judge(review, "li", correct=[1] * 10, tone=[5] * 10)
    with pytest.raises(EvaluationError, match=r"2 of 12 judgements of shop.people are missing.*Some items get 2"):
        results(review, latest(marks), LATER)
    with pytest.raises(EvaluationError, match="12 of 12"):
        results(review, latest(marks[:10]), LATER)


def test_more_reviewers_are_asked_for_only_where_an_item_gets_several() -> None:
    review = build_review(questions=2, share=0)
    with pytest.raises(EvaluationError) as missing:
        results(review, {}, LATER)
    assert "reviewers" not in str(missing.value)


def test_comments_say_whose_answers_the_reviewer_saw_as_a_and_b() -> None:
    review = build_review("pairs", versions=2, questions=3, share=0, criteria=())
    digests = list(review.judged)
    marks = [
        make_mark(digests[1], "Li", "comment", "B is rude.", left=1),
        make_mark(digests[0], "Ana", "comment", "Both fine.", left=0),
        make_mark(digests[2], "Li", "comment", ""),
    ]
    stable, candidate = (version.name for version in review.versions)
    assert comments(review, latest(marks)) == [
        Comment("q0", "Ana", (stable, candidate), "Both fine."),
        Comment("q1", "Li", (candidate, stable), "B is rude."),
    ]


def test_a_gate_names_what_people_said() -> None:
    review = build_review(questions=4, share=0)
    (result,) = results(review, latest(judge(review, "li", correct=[1, 1, 1, 0], tone=[5] * 4)), LATER)
    gate = Gate(suite="shop.people", metric="correct", min=0.7)
    assert check_gate(gate, {result.suite: result}, {}).passed is True


def test_marks_of_answers_that_are_judged_no_more_count_for_nothing() -> None:
    review = build_review(questions=2, share=0, criteria=CRITERIA[:1])
    marks = latest([*judge(review, "li", correct=[1, 1]), make_mark("sha256:other", "li", "correct", 0, seconds=99.0)])
    (result,) = results(review, marks, LATER)
    assert (metric(result, "score").value, result.seconds) == (1, 3)
