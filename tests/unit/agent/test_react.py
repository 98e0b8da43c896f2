from __future__ import annotations

import pytest

from tunegate.agent.react import Answer, Malformed, Step, answer_of, answer_so_far, parse

STEPS = {
    "the-articles": (
        "Thought: I need to calculate the square.\nAction: Calculator\nInput: 632^2\n",
        ("I need to calculate the square.", "Calculator", "632^2"),
    ),
    "without-input": ("Thought: I look it up.\nAction: Search API", ("I look it up.", "Search API", "")),
    "chinese": ("思考：我需要计算。\n行动：计算器\n输入：632^2", ("我需要计算。", "计算器", "632^2")),
    "mixed": ("思考: 计算\nAction： 计算器\n行动输入：632^2", ("计算", "计算器", "632^2")),
    "action-input": ("Action: Calculator\nAction Input: 632^2", ("", "Calculator", "632^2")),
    "thought-goes-on-from-the-prompt": (
        "I look it up.\nAction: Search API\nInput: a",
        ("I look it up.", "Search API", "a"),
    ),
    "bold-and-numbered": (
        '**Thought 1:** Look.\n**Action 1:** `Search API`\n**Input 1:** "a"',
        ("Look.", "Search API", "a"),
    ),
    "as-a-call": ("Action: Calculator[632^2]", ("", "Calculator", "632^2")),
    "as-a-call-in-full-width": ("行动：计算器（632^2）", ("", "计算器", "632^2")),
    "json": ('Action: Calculator\nInput: {"expression": "632^2"}', ("", "Calculator", "632^2")),
    "json-of-several": ('Action: Search API\nInput: {"q": "a", "n": 2}', ("", "Search API", '{"q": "a", "n": 2}')),
    "code-block": ("Action: Calculator\nInput:\n```python\n632^2\n```", ("", "Calculator", "632^2")),
    "several-lines": ("Action: Search API\nInput: tall\nbuildings", ("", "Search API", "tall\nbuildings")),
    "two-thoughts": ("Thought: a\nThought: b\nAction: X\nInput: c", ("a\nb", "X", "c")),
}


@pytest.mark.parametrize(("text", "step"), STEPS.values(), ids=STEPS)
def test_an_action_is_found(text: str, step: tuple[str, str, str]) -> None:
    move = parse(text)

    assert isinstance(move, Step)
    assert (move.thought, move.tool, move.input) == step
    assert move.discarded == 0


def test_only_the_first_action_counts_and_nothing_made_up_after_it() -> None:
    first = "Thought: a\nAction: Search API\nInput: tallest building"
    made_up = "\nObservation: 700 meters\nThought: b\nAction: Calculator\nInput: 700^2\nFinal Result: 490000"

    assert parse(first + made_up) == Step("a", "Search API", "tallest building", first, discarded=1)


def test_an_observation_that_was_cut_off_is_no_input() -> None:
    move = parse("Action: Search API\nInput: tallest building\nObservation:")

    assert isinstance(move, Step)
    assert move.input == "tallest building"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Thought: Final Result: The square is 399424", ("", "The square is 399424")),
        ("Thought: I know it.\nFinal Result: 399424\nreally", ("I know it.", "399424\nreally")),
        ("思考：知道了。\n最终结果：399424", ("知道了。", "399424")),
        ("思考：最终结果：399424", ("", "399424")),
        ("**Final Answer:** 399424", ("", "399424")),
        ("最终答案: 是632米", ("", "是632米")),
        ("Final Result: 9\nQuestion: another\nThought: c", ("", "9\nQuestion: another")),
    ],
)
def test_an_answer_is_found(text: str, answer: tuple[str, str]) -> None:
    assert parse(text) == Answer(*answer)


@pytest.mark.parametrize(
    "text", ["", "It is 632 meters.", "Thought: hm", "Action:", "Final Result:", "Input: 3", "行动方案很多"]
)
def test_neither_is_told(text: str) -> None:
    assert parse(text) == Malformed(text.strip())


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Thought: I know", ""),
        ("Final Result: It", "It"),
        ("Final Result: It is 5.\nObs", "It is 5."),
        (
            "最终结果：是\n五。\n这是一个很长的句子，不可能是一个标签，因为标签都没有这么长，所以可以显示",
            "是\n五。\n这是一个很长的句子，不可能是一个标签，因为标签都没有这么长，所以可以显示",
        ),
        ("Final Result: It is 5.\nObservation: none", "It is 5."),
        ("Action: Calculator\nInput: 5", ""),
    ],
)
def test_the_answer_shows_as_far_as_it_is_surely_one(text: str, answer: str) -> None:
    assert answer_so_far(text) == answer


def test_what_a_model_still_thinks_is_no_answer() -> None:
    thinking = "<think>\nI could write\nFinal Result: 5\nbut"
    assert parse(thinking) == Malformed("")
    assert answer_so_far(thinking) == ""
    assert answer_so_far(f"{thinking} no.</think>\nFinal Result: 6") == "6"
    assert answer_of(thinking) == ""
