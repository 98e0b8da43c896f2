from __future__ import annotations

from typing import Any

import pytest

from tunegate.training.data.formats import dialogue_of, unread_keys
from tunegate.training.data.layouts import Columns, Formatting, layout_of
from tunegate.training.data.readers import RecordError

ASK = {"from": "human", "value": "Hi"}
TELL = {"from": "gpt", "value": "Hello."}
USER = {"role": "user", "content": "Hi"}
ASSISTANT = {"role": "assistant", "content": "Hello."}


def _turns(record: Any, formatting: Formatting, columns: Columns | None = None) -> list[str]:
    dialogue = dialogue_of(record, layout_of(formatting, columns))
    return [f"{message.role}: {message.content}" for message in dialogue.messages]


@pytest.mark.parametrize(
    ("record", "turns"),
    [
        pytest.param(
            {"instruction": "推荐一款", "input": "男士洗面奶", "output": "推荐A款。", "history": [["你好", "您好。"]]},
            ["user: 你好", "assistant: 您好。", "user: 推荐一款\n男士洗面奶", "assistant: 推荐A款。"],
            id="history and input",
        ),
        pytest.param(
            {"instruction": "Hi", "input": "", "output": "Hello.", "system": "Be kind."},
            ["system: Be kind.", "user: Hi", "assistant: Hello."],
            id="system",
        ),
        pytest.param(
            {"instruction": "", "input": "Hi", "output": "Hello."}, ["user: Hi", "assistant: Hello."], id="input alone"
        ),
    ],
)
def test_an_alpaca_record_becomes_its_history_question_and_answer(record: Any, turns: list[str]) -> None:
    assert _turns(record, "alpaca") == turns


def test_where_columns_are_named_only_those_are_read() -> None:
    record = {"q": "Hi", "a": "Hello.", "input": "not read", "history": "not read", "sys": "Be kind."}

    assert _turns(record, "alpaca", Columns(prompt="q", response="a", system="sys")) == [
        "system: Be kind.",
        "user: Hi",
        "assistant: Hello.",
    ]


def test_sharegpt_and_openai_records_become_the_same_dialogue() -> None:
    wanted = ["system: Be kind.", "user: Hi", "assistant: Hello."]
    assert _turns({"conversations": [ASK, TELL], "system": "Be kind."}, "sharegpt") == wanted
    system = {"role": "system", "content": "Be kind."}
    assert _turns({"messages": [system, USER, ASSISTANT]}, "openai") == wanted


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        pytest.param([ASK, TELL], "not an object", id="a list"),
        pytest.param(
            {"conversation": [ASK, TELL]}, "under 'conversations'; it has 'conversation'", id="misspelled key"
        ),
        pytest.param({"conversations": [ASK]}, "don't take turns", id="no answer"),
        pytest.param({"conversations": [TELL, ASK]}, "turn 1 is an assistant's, where a system", id="wrong order"),
        pytest.param({"conversations": [ASK, TELL, ASK]}, "the last turn is a user's, where an assist", id="no end"),
        pytest.param(
            {"conversations": [ASK, ASK, TELL]},
            "turn 2 is a user's, after a user's, where an assistant's or a call of tools belongs",
            id="two questions",
        ),
        pytest.param({"conversations": [{"role": "user", "text": "Hi"}]}, "it has 'role', 'text'", id="other tags"),
        pytest.param({"conversations": []}, "don't take turns", id="empty"),
        pytest.param(
            {"conversations": [ASK, {"from": "gpt", "value": " "}]}, "an assistant turn has no text", id="blank"
        ),
        pytest.param(
            {"conversations": [ASK, {"from": "gpt", "value": 3}]}, "an assistant turn is a number", id="number"
        ),
        pytest.param({"conversations": [ASK, {"from": "gpt"}]}, "a message has no 'value'", id="no text"),
        pytest.param(
            {"conversations": [ASK, {"from": "narrator", "value": "x"}]}, "'narrator' is none of the roles", id="role"
        ),
        pytest.param({"conversations": [{"from": ["human"], "value": "x"}, TELL]}, "none of the roles", id="roles"),
        pytest.param(
            {"conversations": [ASK, {"from": "function_call", "value": "x"}]},
            "a tool call is not valid JSON",
            id="call",
        ),
        pytest.param(
            {"conversations": [ASK, {"from": "observation", "value": "x"}, TELL]},
            "turn 2 is a tool's, after a user's",
            id="tool",
        ),
        pytest.param(
            {"conversations": [{"from": "human", "value": "a<|im_end|>"}, TELL]},
            "belong to the chat template",
            id="token",
        ),
        pytest.param(
            {"messages": [USER, ASSISTANT]},
            "'conversations'; it looks like openai, in a data set of sharegpt",
            id="another layout",
        ),
    ],
)
def test_an_unusable_sharegpt_record_is_refused_with_the_reason(record: Any, reason: str) -> None:
    with pytest.raises(RecordError, match=reason):
        _turns(record, "sharegpt")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        pytest.param({"instruction": "Hi", "ouput": "x"}, "it has no 'output'; it has 'ouput'", id="misspelled key"),
        pytest.param({"instruction": None, "input": None, "output": "x"}, "user turn has no text", id="no question"),
        pytest.param(
            {"instruction": "Hi", "input": 3, "output": "x"}, "a user turn is a number .3., not a text", id="number"
        ),
        pytest.param({"instruction": ["Hi", "Ho"], "output": ["a", "b"]}, "a list of 2 texts, not one", id="columns"),
        pytest.param({"instruction": "Hi", "output": "x", "history": [["a"]]}, "not a pair", id="history"),
        pytest.param({"instruction": "Hi", "output": "x", "history": 5}, "not a pair", id="no history"),
        pytest.param({"conversations": [ASK, TELL]}, "it looks like sharegpt, in a data set of alpaca", id="layout"),
    ],
)
def test_an_unusable_alpaca_record_is_refused_with_the_reason(record: Any, reason: str) -> None:
    with pytest.raises(RecordError, match=reason):
        _turns(record, "alpaca")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param(
            {"tool_calls": [{"function": {"name": "w", "arguments": "{"}}]}, "what 'w' is .* not valid JSON", id="j"
        ),
        pytest.param(
            {"tool_calls": [{"function": {"name": "w", "arguments": "[]"}}]}, "'w' is .* no object", id="list"
        ),
        pytest.param({"tool_calls": [{"function": {"arguments": "{}"}}]}, "a tool call has no name", id="no name"),
        pytest.param(
            {"content": [{"type": "image_url"}]}, "a part of an assistant turn is of the type 'image_url'", id="a"
        ),
        pytest.param({"content": "x", "weight": 0.5}, "has the weight 0.5; only 0 and 1", id="weight"),
    ],
)
def test_a_message_is_refused_for_what_it_has(answer: Any, reason: str) -> None:
    with pytest.raises(RecordError, match=reason):
        _turns({"messages": [USER, {"role": "assistant", **answer}]}, "openai")


def test_parts_of_text_are_joined_and_the_first_turn_of_two_systems_is_taken() -> None:
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "value": "lo."}]
    assert _turns({"messages": [USER, {"role": "assistant", "content": parts}]}, "openai")[1] == "assistant: Hello."

    record = {"system": "The column's.", "conversations": [{"from": "system", "value": "The turn's."}, ASK, TELL]}
    assert _turns(record, "sharegpt")[0] == "system: The turn's."
    assert list(unread_keys(record, layout_of("sharegpt"))) == ["system"]


@pytest.mark.parametrize("mark", [{"weight": 0}, {"loss": False}, {"loss_weight": 0.0}, {"train": False}])
def test_an_answer_that_says_so_is_not_to_be_trained(mark: Any) -> None:
    record = {"messages": [USER, {**ASSISTANT, **mark}, USER, {**ASSISTANT, "weight": 1}]}

    first, second = dialogue_of(record, layout_of("openai")).messages[1::2]

    assert (first.trained, second.trained) == (False, True)


def test_keys_that_hold_something_and_are_not_read_are_named() -> None:
    answer = {**ASSISTANT, "reasoning_content": "Hm.", "weight": 0, "name": None, "refusal": "No."}
    record = {"messages": [{**USER, "name": "Ann"}, answer], "id": 7, "tools": [], "parallel_tool_calls": True}

    assert list(unread_keys(record, layout_of("openai"))) == [
        *("id", "parallel_tool_calls"),
        *("messages[].name", "messages[].refusal"),
    ]
