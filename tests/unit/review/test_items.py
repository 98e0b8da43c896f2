"""What becomes of stored answers when they are to be judged."""

from __future__ import annotations

import msgspec
import pytest

from tests.unit.review.builders import CRITERIA, build_review, make_answers, make_suite
from tunegate.api.codec import from_json, to_json
from tunegate.api.errors import UsageError
from tunegate.evaluation.criteria import Criterion
from tunegate.review.items import PREFERENCE, QUALITY, Review, make_review


def test_single_answers_are_judged_once_however_many_versions_gave_them() -> None:
    review = build_review(versions=2, questions=10, same=4)

    assert (review.suite, len(review.items), len(review.judged)) == ("shop.people", 20, 16)
    assert review.criteria == CRITERIA
    first = review.items[0]
    assert (first.question, first.context, first.reference) == ("q0", "Prices include tax.", "$30, 0")
    assert first.messages[0].role == "system"


def test_pairs_are_all_pairs_and_equal_answers_are_nobodys_work() -> None:
    review = build_review("pairs", versions=3, questions=10, same=4)

    assert (review.suite, len(review.items), len(review.judged)) == ("shop.pairs", 30, 18)
    places = {tuple(answer.version for answer in item.answers) for item in review.items}
    assert places == {(0, 1), (0, 2), (1, 2)}


def test_results_of_other_answers_are_comparable_alone_but_not_in_pairs() -> None:
    suite = make_suite()
    singles = [make_review(suite, [make_answers(suite, version)], "single").digest for version in (0, 1)]
    assert singles[0] == singles[1]
    pairs = [make_review(suite, [make_answers(suite, version), make_answers(suite, 2)], "pairs") for version in (0, 1)]
    assert pairs[0].digest != pairs[1].digest


def test_an_unchanged_answer_keeps_its_digest_when_others_change() -> None:
    before, after = build_review(questions=5), build_review(questions=5, same=2)
    kept = [old.digest == new.digest for old, new in zip(before.items, after.items, strict=True)]
    assert kept == [False, False, True, True, True]


def test_suites_that_name_no_criteria_ask_for_quality_or_preference() -> None:
    assert build_review(criteria=()).criteria == (QUALITY,)
    assert build_review("pairs", versions=2, criteria=()).criteria == (PREFERENCE,)


def test_a_review_comes_back_from_its_file() -> None:
    review = build_review("pairs", versions=2)
    assert from_json(to_json(review), Review, "review.json") == review


def test_what_can_not_be_compared_is_refused() -> None:
    suite = make_suite()
    with pytest.raises(UsageError, match="two versions or more"):
        make_review(suite, [make_answers(suite, 0)], "pairs")
    with pytest.raises(UsageError, match="named twice"):
        make_review(suite, [make_answers(suite, 0)] * 2, "single")
    other = msgspec.structs.replace(make_answers(suite, 0), suite_digest="sha256:other")
    with pytest.raises(UsageError, match="tunegate evaluate shop/run-0/checkpoint-1 --suite shop"):
        make_review(suite, [other], "single")


@pytest.mark.parametrize(
    ("fields", "values", "least"),
    [
        ({}, [0, 1], 1),
        ({"points": 3}, [1, 2, 3], 2),
        ({"points": 5}, [1, 2, 3, 4, 5], 4),
        ({"points": 5, "passes": 3}, [1, 2, 3, 4, 5], 3),
    ],
)
def test_a_scale_says_its_values_and_which_pass(fields: dict[str, int], values: list[int], least: int) -> None:
    criterion = msgspec.convert({"name": "tone", **fields}, Criterion)
    assert (list(criterion.values), criterion.least) == (values, least)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "comment"}, "can't be called comment"),
        ({"name": "Tone!"}, "matching regex"),
        ({"name": "tone", "points": 3, "labels": ["no", "yes"]}, "3 points and 2 labels"),
        ({"name": "tone", "points": 3, "passes": 4}, "none of its values"),
    ],
)
def test_a_criterion_that_could_not_be_used_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(fields, Criterion)
