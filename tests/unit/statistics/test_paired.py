from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import pytest

from tunegate.api.evaluation import Average, Evaluation, Metric, Record
from tunegate.statistics.paired import Difference, paired


def asked(
    scores: Mapping[str, float],
    value: float | None = None,
    *,
    metric: str = "score",
    clusters: Sequence[str] = (),
    **more: object,
) -> Evaluation:
    """An evaluation with these scores by question; `value`: of the metric, by default their mean."""
    clusters = clusters or [""] * len(scores)
    score = metric.partition("/")[0]
    value = sum(scores.values()) / len(scores) if value is None else value
    fields: dict[str, object] = {
        "version": "shop/run/checkpoint-1",
        "digest": "d",
        "suite": "shop-en",
        "suite_digest": "s",
        "metrics": (Metric(name=metric, value=value, n=len(scores)),),
        "records": tuple(
            Record(id=name, prompt="?", expected="", answer="", cluster=cluster, scores={score: each})
            for (name, each), cluster in zip(scores.items(), clusters, strict=True)
        ),
        "code_version": "1",
        "started": datetime(2030, 1, 1, tzinfo=UTC),
        "seconds": 1.0,
    }
    return Evaluation(**{**fields, **more})  # type: ignore[arg-type]


def numbered(*scores: float) -> dict[str, float]:
    return {str(number): score for number, score in enumerate(scores)}


def difference(before: Evaluation, after: Evaluation, metric: str = "score") -> Difference:
    found = paired(before, after, metric)
    assert isinstance(found, Difference), found
    return found


def test_the_interval_is_agresti_and_mins() -> None:
    before, after = numbered(*[1] * 90, *[0] * 60), numbered(*[1] * 84, *[0] * 6, *[1] * 14, *[0] * 46)
    found = difference(asked(before), asked(after))

    assert (found.n, found.up, found.down) == (150, 14, 6)
    assert found.value == pytest.approx(8 / 150)
    # with half a question more in each of the four cells: (14.5 - 6.5) / 152
    half = 1.959964 * math.sqrt(14.5 + 6.5 - (14.5 - 6.5) ** 2 / 152) / 152
    assert (found.low, found.high) == pytest.approx((8 / 152 - half, 8 / 152 + half))


def test_it_is_narrower_than_one_of_both_versions_own_intervals() -> None:
    before, after = numbered(*[1] * 90, *[0] * 60), numbered(*[1] * 96, *[0] * 54)
    found = difference(asked(before), asked(after))

    assert found.high - found.low < 0.08  # 0.6 and 0.64 of 150 each are ±0.08, apart ±0.11


def test_where_nothing_changed_the_interval_is_no_point() -> None:
    same = asked(numbered(*[1] * 10))
    found = difference(same, same)

    assert found.value == 0
    assert -0.25 < found.low < -0.1
    assert found.high == -found.low


@pytest.mark.parametrize(("n", "lost", "gained"), [(50, 0.07, 0.13), (150, 0.02, 0.02), (60, 0.2, 0.1)])
def test_the_interval_holds_the_truth(n: int, lost: float, gained: float) -> None:
    """In 95 % of 1,000 draws or nearly: 935 is three standard errors below."""
    draw, held = random.Random(1), 0  # noqa: S311
    for _ in range(1000):
        changes = draw.choices([-1, 1, 0], weights=[lost, gained, 1 - lost - gained], k=n)
        before = numbered(*(float(change < 0) for change in changes))
        after = numbered(*(float(change > 0) for change in changes))
        found = difference(asked(before), asked(after))
        held += found.low <= gained - lost <= found.high
    assert held > 935


def test_each_subject_counts_the_same_where_it_does_in_the_metric() -> None:
    before = {**{f"law/{n}": 0.0 for n in range(4)}, **{f"art/{n}": 1.0 for n in range(16)}}
    after = before | {"law/0": 1.0, "law/1": 1.0, "art/0": 0.0}
    averages = {
        "accuracy": Average(score="accuracy", is_macro=True),
        "accuracy_stem": Average(score="accuracy", subjects=("law",)),
    }
    metrics = (Metric(name="accuracy", value=0.5, n=20), Metric(name="accuracy_stem", value=0.0, n=4))
    then = (Metric(name="accuracy", value=(0.5 + 15 / 16) / 2, n=20), Metric(name="accuracy_stem", value=0.5, n=4))
    first = asked(before, metric="accuracy", metrics=metrics, averages=averages)
    second = asked(after, metric="accuracy", metrics=then, averages=averages)

    whole, area = difference(first, second, "accuracy"), difference(first, second, "accuracy_stem")

    assert whole.value == pytest.approx((0.5 - 1 / 16) / 2)
    assert (whole.n, whole.up, whole.down) == (20, 2, 1)
    assert whole.low < whole.value < whole.high
    assert (area.value, area.n, area.up) == (0.5, 4, 2)


@pytest.mark.parametrize(("subjects", "each"), [(52, 2), (20, 10), (1, 150)])
def test_the_interval_holds_a_large_difference_however_many_subjects_there_are(subjects: int, each: int) -> None:
    """Two added questions for each of 52 subjects would draw it so far to no difference that it held none of these."""
    draw, held = random.Random(7), 0  # noqa: S311
    names = [f"{subject}/{question}" for subject in range(subjects) for question in range(each)]
    before = dict.fromkeys(names, 1.0)
    averages = {"accuracy": Average(score="accuracy", is_macro=True)}
    for _ in range(100):
        after = dict(zip(names, draw.choices([0.0, 1.0], weights=[0.3, 0.7], k=len(names)), strict=True))
        first, second = (asked(scores, metric="accuracy", averages=averages) for scores in (before, after))
        found = difference(first, second, "accuracy")
        assert found.low < found.value < found.high
        held += found.low <= -0.3 <= found.high
    assert held >= 90


def test_a_metric_that_is_named_after_a_subject_is_of_its_questions() -> None:
    before = {"law/0": 1.0, "law/1": 0.0, "art/0": 1.0}
    first = asked(before, 0.5, metric="accuracy/law")
    second = asked(before | {"law/1": 1.0, "art/0": 0.0}, 1.0, metric="accuracy/law")

    found = difference(first, second, "accuracy/law")

    assert (found.n, found.value, found.down) == (2, 0.5, 0)


def test_scores_between_right_and_wrong_are_compared_as_well() -> None:
    before = numbered(*(n / 100 for n in range(100)))
    found = difference(asked(before), asked({name: score * 0.9 for name, score in before.items()}))

    assert found.value == pytest.approx(-0.0495)
    assert found.low < found.value < found.high < 0


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (asked(numbered(1, 0), suite_digest="t"), "not asked the same questions"),
        (asked(numbered(1, 0), prompts_digest="t"), "with the same prompts"),
        (asked(numbered(1, 0, 0)), "have no score of each of the same questions"),
        (asked(numbered(1, 0), metric="fluent"), "have no score of each of the same questions"),
        (asked(numbered(1, 0), 0.7), "have a score that is no mean of its questions' scores"),
    ],
    ids=["suite", "prompts", "questions", "metric", "no-mean"],
)
def test_what_can_not_be_compared_question_by_question_says_why(after: Evaluation, said: str) -> None:
    found = paired(asked(numbered(1, 0)), after, "score")
    assert isinstance(found, str)
    assert said in found
