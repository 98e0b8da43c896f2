from __future__ import annotations

import re
from typing import Any

import pytest

from tunegate.training.data.formats import dialogue_of
from tunegate.training.data.layouts import Columns, advice, entry_of, layout_of, merged, recognize

USER, ASSISTANT = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}
ASK, TELL = {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}


@pytest.mark.parametrize(
    ("record", "formatting"),
    [
        pytest.param({"instruction": "Hi", "input": "", "output": "Hello."}, "alpaca", id="alpaca"),
        pytest.param(
            {"instruction": "Hi", "context": "", "response": "Hello.", "category": "qa"}, "alpaca", id="dolly"
        ),
        pytest.param({"kind": "Dictionary", "input": "Hi", "target": "Hello."}, "alpaca", id="firefly"),
        pytest.param({"prompt": "Hi", "completion": "Hello."}, "alpaca", id="trl"),
        pytest.param({"query": "Hi", "response": "Hello.", "history": [], "system": None}, "alpaca", id="ms-swift"),
        pytest.param({"query": "Hi", "response": "Hello.", "original_question": "Hi"}, "alpaca", id="metamath"),
        pytest.param({"question": "Hi", "answer": "Hello."}, "alpaca", id="question and answer"),
        pytest.param({"prompt": [USER], "completion": [ASSISTANT]}, "openai", id="trl in messages"),
        pytest.param({"inputs": "Hi", "targets": "Hello.", "language": "English"}, "alpaca", id="aya"),
        pytest.param({"input": [USER], "output": "Hello.", "category": "math"}, "openai", id="nemotron"),
        pytest.param({"id": "0", "data": ["Hi", "Hello."]}, "sharegpt", id="ultrachat"),
        pytest.param({"text": "### Human: Hi### Assistant: Hello."}, "text", id="guanaco"),
        pytest.param({"text": "<s>[INST] Hi [/INST] Hello. </s>"}, "text", id="llama 2"),
        pytest.param(
            {"text": "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n"}, "text", id="chatml"
        ),
        pytest.param({"conversations": [ASK, TELL]}, "sharegpt", id="sharegpt"),
        pytest.param({"conversations": [ASK, {**TELL, "from": "assistant"}]}, "sharegpt", id="belle"),
        pytest.param({"messages": [ASK, TELL]}, "sharegpt", id="sharegpt under messages"),
        pytest.param(
            {"conversations": [{"from": "user", "content": "Hi"}, {"from": "bot", "content": "Hello."}]},
            "sharegpt",
            id="mixed tags",
        ),
        pytest.param({"messages": [USER, ASSISTANT]}, "openai", id="openai"),
        pytest.param({"prompt": "Hi", "prompt_id": "1", "messages": [USER, ASSISTANT]}, "openai", id="no robots"),
        pytest.param({"conversations": [USER, ASSISTANT]}, "openai", id="openai under conversations"),
        pytest.param({"conversation": [{"human": "Hi", "assistant": "Hello."}]}, "pairs", id="ms-swift's pairs"),
        pytest.param({"conversation": [{"system": "", "input": "Hi", "output": "Hello."}]}, "pairs", id="xtuner"),
    ],
)
def test_a_layout_is_recognized_by_the_keys_of_a_record(record: Any, formatting: str) -> None:
    layout = recognize(record)

    assert layout is not None
    assert layout.formatting == formatting
    assert [(turn.role, turn.content) for turn in dialogue_of(record, layout).messages] == [
        ("user", "Hi"),
        ("assistant", "Hello."),
    ]


@pytest.mark.parametrize(
    ("record", "said"),
    [
        pytest.param(
            {"instruction": "Hi", "output": "x", "messages": [USER, ASSISTANT]},
            'which of its layouts is meant.*"messages": "messages".* or {"formatting": "alpaca"',
            id="two",
        ),
        pytest.param(
            {"problem": "1+1", "solution": "It is 2.", "answer": "2"},
            '"response": "answer".* or .*"response": "solution"',
            id="answers",
        ),
        pytest.param(
            {"talk": [{"speaker": "user", "text": "Hi"}]},
            '"columns": {"messages": "talk"}, "tags": {"role_tag": "speaker", "content_tag": "text"}}',
            id="another key",
        ),
        pytest.param(
            {"question": "Hi", "thought": "Hm."},
            '"columns": {"prompt": "question", "response": "KEY"}}; where that can\'t say it, write',
            id="no answer",
        ),
        pytest.param(
            {"Question": "Hi", "Response": "Hello."},
            '"columns": {"prompt": "Question", "response": "Response"}}',
            id="in capitals",
        ),
        pytest.param(
            {"问题": "你好", "回答": "您好。"}, '"columns": {"prompt": "问题", "response": "回答"}}', id="in Chinese"
        ),
        pytest.param(["Hi", "Hello."], '{"messages": ', id="no object"),
        pytest.param({"text": "The lamp is bright."}, '{"messages": ', id="no dialogue"),
    ],
)
def test_what_is_of_no_layout_or_of_several_is_told_what_to_write(record: Any, said: str) -> None:
    assert recognize(record) is None
    assert said in advice(record) or re.search(said, advice(record))


def test_what_an_entry_would_say_names_what_a_record_has() -> None:
    assert entry_of(layout_of("alpaca", Columns("问", "more", "答")), {"问": "Hi", "答": "Hello."}) == (
        '{"formatting": "alpaca", "columns": {"prompt": "问", "response": "答"}}'
    )


def test_records_that_leave_keys_out_show_them_together() -> None:
    first, second = {"conversations": [], "system": None}, {"conversations": [ASK], "id": 3}

    assert merged([first, second, "x"]) == {"conversations": [ASK], "system": None, "id": 3}
    assert merged(["x", ["y"]]) == "x"
