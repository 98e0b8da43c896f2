from __future__ import annotations

import random

import msgspec
import pytest

from tunegate.evaluation.rules import Contains, Exact, Excludes, RougeL, Rule, kind, passes, rouge_l


@pytest.mark.parametrize(
    ("rule", "answer", "kept"),
    [
        pytest.param(Contains(any=("$26", "26 dollars")), "That is $26.", True, id="one of any"),
        pytest.param(Contains(any=("$26", "26 dollars")), "That is $62.", False, id="none of any"),
        pytest.param(Contains(all=("red", "blue")), "Blue and red.", True, id="all, whatever the case"),
        pytest.param(Contains(all=("red", "blue")), "Only red.", False, id="not all"),
        pytest.param(Contains(any=("26元",)), "售价２６元。", True, id="full width is plain"),
        pytest.param(Contains(any=("四天",)), "预计四天送达", True, id="Chinese"),
        pytest.param(Contains(any=("two  days",)), "in two\ndays", True, id="white space"),
        pytest.param(Contains(any=("Straße",)), "STRASSE 5", True, id="case is folded, not lowered"),
        pytest.param(Contains(any=("26",)), "", False, id="an empty answer contains nothing"),
        pytest.param(Excludes(any=("never", "不")), "Always.", True, id="nothing excluded"),
        pytest.param(Excludes(any=("never", "不")), "NEVER!", False, id="excluded"),
        pytest.param(Exact(), " it COSTS $26 ", True, id="exact but for case and space"),
        pytest.param(Exact(), "it costs $26!", False, id="not exact"),
        pytest.param(RougeL(min=0.5), "it costs $62", True, id="near enough"),
        pytest.param(RougeL(min=1), "it costs $62", False, id="not the same"),
    ],
)
def test_a_rule_is_kept_or_broken(rule: Rule, answer: str, kept: bool) -> None:
    assert passes(rule, answer, "It costs $26") is kept


@pytest.mark.parametrize(
    ("answer", "reference", "f1"),
    [
        pytest.param("abc", "abc", 1.0, id="same"),
        pytest.param("abc", "xyz", 0.0, id="nothing in common"),
        pytest.param("", "abc", 0.0, id="empty"),
        pytest.param("您好，我是玄机。", "您好，我是小玄。", 2 * 7 / 16, id="Chinese: 7 of 8 characters in order"),
        pytest.param("水壶售价26元", "售价：26元", 2 * 5 / 13, id="Chinese with digits; the full-width colon counts"),
    ],
)
def test_rouge_l_is_f1_of_the_longest_common_subsequence_of_characters(answer: str, reference: str, f1: float) -> None:
    assert rouge_l(answer, reference) == pytest.approx(f1)


def test_rouge_l_agrees_with_the_textbook_on_random_texts() -> None:
    dice = random.Random(0)  # noqa: S311 (no secret)
    for _ in range(200):
        a, b = ("".join(dice.choices("天气好ab c", k=dice.randint(1, 12))).strip() or "x" for _ in range(2))
        a, b = " ".join(a.split()), " ".join(b.split())
        assert rouge_l(a, b) == pytest.approx(2 * _subsequence(a, b) / (len(a) + len(b)))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"kind": "regex", "any": ["a"]}', "regex"),
        ('{"any": ["a"]}', "kind"),
        ('{"kind": "contains"}', "either any or all"),
        ('{"kind": "contains", "any": ["a"], "all": ["b"]}', "either any or all"),
        ('{"kind": "contains", "any": [" "]}', "blank"),
        ('{"kind": "contains", "some": ["a"]}', "some"),
        ('{"kind": "excludes", "any": []}', "at least one text"),
        ('{"kind": "rouge_l", "min": 0}', "above 0"),
        ('{"kind": "rouge_l", "min": 1.5}', "at most 1"),
        ('{"kind": "rouge_l", "min": "much"}', "float"),
    ],
)
def test_a_rule_that_can_not_be_meant_is_refused(text: str, reason: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=reason):
        msgspec.json.decode(text, type=Rule)


def test_the_bound_on_rouge_l_has_a_name_of_its_own() -> None:
    rules: list[Rule] = [Contains(any=("a",)), Excludes(any=("a",)), Exact(), RougeL(min=1)]
    assert [kind(rule) for rule in rules] == ["contains", "excludes", "exact", "rouge_l_min"]


def _subsequence(a: str, b: str) -> int:
    row = [0] * (len(b) + 1)
    for x in a:
        before = row[:]
        for i, y in enumerate(b, start=1):
            row[i] = before[i - 1] + 1 if x == y else max(before[i], row[i - 1])
    return row[-1]
