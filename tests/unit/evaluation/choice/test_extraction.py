from __future__ import annotations

import pytest

from tunegate.evaluation.choice.extraction import read_letter

OPTIONS = ("既不可靠也不按序", "保温杯", "kettle", "四天")


@pytest.mark.parametrize(
    ("written", "letter"),
    [
        ("B", "B"),
        ("B.", "B"),
        ("B. 保温杯", "B"),
        ("（C）", "C"),
        ("**D**", "D"),
        ("答案是A。", "A"),
        ("答案：C", "C"),
        ("答案为 D", "D"),
        ("正确答案是选项B", "B"),
        ("应该选D", "D"),
        ("故选C。", "C"),
        ("A选项正确。", "A"),
        ("C项符合题意", "C"),
        ("A是错的，B也不对，所以答案是D。", "D"),
        ("先看A，再看B。答案是A？不，所以答案是B。", "B"),
        ("答案不是A，答案是C", "C"),
        ("The answer is B.", "B"),
        ("Answer: (C)", "C"),
        ("The correct answer is **D** because A Book is no kettle.", "D"),
        ("一只保温杯。", "B"),
        ("It would be the kettle", "C"),
        ("我会选择A", "A"),
    ],
)
def test_the_letter_is_read_where_the_answer_names_it(written: str, letter: str) -> None:
    assert read_letter(written, OPTIONS) == letter


@pytest.mark.parametrize(
    "written",
    [
        "",
        "我不知道。",
        "A或B都可以",
        "保温杯或者四天",
        "答案不是A也不是B",
        "Any Book Can Do",
        "不选A，B",
    ],
)
def test_what_names_no_letter_or_several_is_no_answer(written: str) -> None:
    assert read_letter(written, OPTIONS) is None
