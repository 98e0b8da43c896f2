"""The exact texts of each harness, which its published numbers were made with."""

from __future__ import annotations

from typing import Any

import pytest

from tunegate.api.errors import UsageError
from tunegate.evaluation.choice import Item, Subject, wording
from tunegate.evaluation.choice.prompts import letters, messages, text

SHOT = Item("0", "水壶的英文是？", ("cup", "kettle", "lamp", "mat"), "B", "水壶用来烧水。")
ITEM = Item("7", "6除以2等于？", ("1", "2", "3", "4"), "C")
SUBJECT = Subject("arithmetic", "算术", (SHOT,), (ITEM,))
OPTIONS = "A. cup\nB. kettle\nC. lamp\nD. mat"
ASKED = "A. 1\nB. 2\nC. 3\nD. 4"


@pytest.mark.parametrize(
    ("exam", "compat", "expected"),
    [
        (
            "ceval",
            "official",
            "以下是中国关于算术考试的单项选择题，请选出其中的正确答案。\n\n"
            f"水壶的英文是？\n{OPTIONS}\n答案：B\n\n6除以2等于？\n{ASKED}\n答案：",
        ),
        ("ceval", "qwen", f"问题：水壶的英文是？\n{OPTIONS}\n答案：B\n\n问题：6除以2等于？\n{ASKED}\n答案："),
        (
            "ceval",
            "lm_eval",
            "以下是中国关于算术的单项选择题，请选出其中的正确答案。\n\n"
            f"水壶的英文是？\n{OPTIONS}\n答案： B\n\n6除以2等于？\n{ASKED}\n答案：",
        ),
        (
            "cmmlu",
            "official",
            "以下是关于算术的单项选择题，请直接给出正确答案的选项。\n\n"
            f"题目：水壶的英文是？\n{OPTIONS}\n答案是：B\n\n题目：6除以2等于？\n{ASKED}\n答案是：",
        ),
        (
            "cmmlu",
            "lm_eval",
            "以下是关于算术的单项选择题，请直接给出正确答案的选项。\n\n"
            f"水壶的英文是？\n{OPTIONS}\n答案： B\n\n6除以2等于？\n{ASKED}\n答案：",
        ),
        (
            "mmlu",
            "official",
            "The following are multiple choice questions (with answers) about 算术.\n\n"
            f"水壶的英文是？\n{OPTIONS}\nAnswer: B\n\n6除以2等于？\n{ASKED}\nAnswer:",
        ),
    ],
)
def test_a_base_model_goes_on_with_the_text_of_the_harness(exam: Any, compat: Any, expected: str) -> None:
    assert text(wording(exam, compat, "base", cot=False), SUBJECT, ITEM, cot=False) == expected


def test_a_chain_of_thought_is_begun_and_shown_by_the_examples() -> None:
    assert text(wording("ceval", "official", "base", cot=True), SUBJECT, ITEM, cot=True) == (
        "以下是中国关于算术考试的单项选择题，请选出其中的正确答案。\n\n"
        f"水壶的英文是？\n{OPTIONS}\n答案：让我们一步一步思考，\n水壶用来烧水。\n所以答案是B。\n\n"
        f"6除以2等于？\n{ASKED}\n答案：让我们一步一步思考，\n1."
    )


def test_a_chat_model_gets_the_instruction_and_the_examples_as_turns() -> None:
    assert messages(wording("ceval", "official", "chat", cot=False), SUBJECT, ITEM, cot=False) == [
        {"role": "system", "content": "以下是中国关于算术考试的单项选择题，请选出其中的正确答案。"},
        {"role": "user", "content": f"水壶的英文是？\n{OPTIONS}\n答案："},
        {"role": "assistant", "content": "B"},
        {"role": "user", "content": f"6除以2等于？\n{ASKED}\n答案："},
    ]


def test_qwens_harness_asks_a_chat_model_without_an_instruction() -> None:
    bare = Subject("arithmetic", "算术", (), (ITEM,))
    assert messages(wording("ceval", "qwen", "chat", cot=False), bare, ITEM, cot=False) == [
        {"role": "user", "content": f"6除以2等于？\n\n{ASKED}\n"}
    ]


@pytest.mark.parametrize(
    ("exam", "compat", "first"),
    [("ceval", "official", "A"), ("ceval", "lm_eval", " A"), ("cmmlu", "official", "A"), ("mmlu", "official", " A")],
)
def test_the_letters_are_compared_as_the_harness_writes_them(exam: Any, compat: Any, first: str) -> None:
    assert letters(wording(exam, compat, "base", cot=False))[0] == first


@pytest.mark.parametrize(
    ("exam", "compat", "mode", "cot"),
    [
        ("mmlu", "qwen", "base", False),
        ("ceval", "lm_eval", "chat", False),
        ("ceval", "qwen", "base", True),
    ],
)
def test_what_a_harness_has_no_way_for_is_refused(exam: Any, compat: Any, mode: Any, cot: bool) -> None:
    with pytest.raises(UsageError, match=rf"{compat} has no (mode|chain).*set compat: official"):
        wording(exam, compat, mode, cot=cot)
