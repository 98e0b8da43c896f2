"""One dialogue with a call of a tool, as each of the layouts writes it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tunegate.training.data.dialogues import Dialogue, Message, ToolCall
from tunegate.training.data.formats import dialogue_of
from tunegate.training.data.layouts import recognize
from tunegate.training.data.readers import Reason, RecordError

ABOUT = {"name": "weather", "description": "How it is", "parameters": {"type": "object", "properties": {"city": {}}}}
TOOL = {"type": "function", "function": ABOUT}
ARGUMENTS = {"city": "Xi'an", "days": 2}
CALL = {"name": "weather", "arguments": ARGUMENTS}
SAID = [
    Message("user", "Weather?"),
    Message("assistant", tool_calls=(ToolCall("weather", ARGUMENTS),)),
    Message("tool", '{"sky": "clear"}'),
    Message("assistant", "It is clear."),
]
ASK, RESULT, TELL = (
    {"from": who, "value": text}
    for who, text in (("human", "Weather?"), ("observation", '{"sky": "clear"}'), ("gpt", "It is clear."))
)
OPENAI = [{"role": "user", "content": "Weather?"}, {"role": "assistant", "content": "It is clear."}]
GLAIVE = (
    "USER: Weather?\n\n\nASSISTANT: <functioncall> "
    """{"name": "weather", "arguments": '{"city": "Xi\\'an", "days": 2}'} <|endoftext|>\n\n\n"""
    """FUNCTION RESPONSE: {"sky": "clear"}\n\n\nASSISTANT: It is clear. <|endoftext|>\n\n\n"""
)


def _read(record: Any) -> Dialogue:
    layout = recognize(record)
    assert layout is not None
    return dialogue_of(record, layout)


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(
            {
                "conversations": [ASK, {"from": "function_call", "value": json.dumps(CALL)}, RESULT, TELL],
                "tools": json.dumps([ABOUT]),
            },
            id="sharegpt",
        ),
        pytest.param(
            {
                "messages": [
                    OPENAI[0],
                    {"role": "tool_call", "content": json.dumps(CALL)},
                    {"role": "tool_response", "content": '{"sky": "clear"}'},
                    OPENAI[1],
                ],
                "tools": json.dumps([TOOL]),
            },
            id="ms-swift",
        ),
        pytest.param(
            {
                "messages": [
                    OPENAI[0],
                    {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": CALL}]},
                    {"role": "tool", "content": {"sky": "clear"}},
                    OPENAI[1],
                ],
                "tools": [TOOL],
                "parallel_tool_calls": False,
            },
            id="openai",
        ),
        pytest.param(
            {
                "messages": [
                    OPENAI[0],
                    {"role": "assistant", "function_call": {**CALL, "arguments": json.dumps(ARGUMENTS)}},
                    {"role": "function", "content": '{"sky": "clear"}'},
                    OPENAI[1],
                ],
                "functions": [ABOUT],
            },
            id="openai of 2023",
        ),
    ],
)
def test_a_call_and_its_result_are_read(record: Any) -> None:
    assert _read(record) == Dialogue(tuple(SAID), (TOOL,))


def test_glaive_has_its_tools_in_the_system_text_and_its_turns_in_one_text() -> None:
    said = "You have access to these functions -"
    system = f"SYSTEM: {said}\n{json.dumps(ABOUT, indent=4)}\n\n{json.dumps({'name': 'news'})}\n"

    read = _read({"system": system, "chat": GLAIVE})

    assert read.messages == (Message("system", said), *SAID)
    assert [tool["function"]["name"] for tool in read.tools] == ["weather", "news"]
    assert _read(
        {"system": "SYSTEM: You have no functions.", "chat": "USER: Hi\n\nASSISTANT: Hello.<|endoftext|>"}
    ) == (
        Dialogue((Message("system", "You have no functions."), Message("user", "Hi"), Message("assistant", "Hello.")))
    )


def test_the_answer_may_be_calls_alone() -> None:
    read = _read({"id": 1, "query": "Weather?", "answers": json.dumps([CALL, CALL]), "tools": json.dumps([ABOUT])})

    assert [message.role for message in read.messages] == ["user", "assistant"]
    assert [call.arguments for call in read.messages[-1].tool_calls] == [ARGUMENTS, ARGUMENTS]


def test_calls_one_after_another_were_made_at_once() -> None:
    call = {"role": "tool_call", "content": json.dumps(CALL)}
    result = {"role": "tool_response", "content": "clear"}

    read = _read({"messages": [OPENAI[0], call, call, result, result, OPENAI[1]]})

    assert [(message.role, len(message.tool_calls)) for message in read.messages] == [
        *(("user", 0), ("assistant", 2)),
        *(("tool", 0), ("tool", 0), ("assistant", 0)),
    ]


def test_a_call_in_words_of_its_own_is_a_text_that_a_tool_may_answer() -> None:
    words = {"from": "gpt", "value": "[weather(city=1)]"}

    read = _read({"conversations": [ASK, words, {"from": "tool", "value": "clear"}, TELL]})

    assert [(turn.role, turn.content) for turn in read.messages][1:3] == [
        ("assistant", "[weather(city=1)]"),
        ("tool", "clear"),
    ]


def test_what_was_thought_is_read_under_each_of_its_names() -> None:
    for key in ("reasoning_content", "reasoning", "thinking"):
        assert _read({"messages": [OPENAI[0], {**OPENAI[1], key: "Hm."}]}).messages[1].reasoning == "Hm."


@pytest.mark.parametrize(
    ("record", "said"),
    [
        pytest.param(
            {"system": "SYSTEM: Use {not json", "chat": GLAIVE},
            "a tool in the system text is not valid JSON",
            id="system",
        ),
        pytest.param({"system": "", "chat": "Hi USER: Hi"}, "does not begin with USER:", id="chat"),
        pytest.param(
            {"system": "", "chat": "USER: Hi\nASSISTANT: <functioncall> w() <|endoftext|>"},
            "is not valid JSON",
            id="glaive",
        ),
        pytest.param({"messages": OPENAI, "tools": "[{"}, "the list of tools is not valid JSON", id="tools"),
        pytest.param({"messages": OPENAI, "tools": [{"type": "function"}]}, "a tool has no name", id="name"),
        pytest.param({"query": "Hi", "answers": "none", "tools": "[]"}, "a tool call is not valid JSON", id="answers"),
    ],
)
def test_a_tool_or_a_call_that_can_not_be_read_is_named(record: Any, said: str) -> None:
    with pytest.raises(RecordError, match=said) as caught:
        _read(record)

    assert caught.value.reason in (Reason.BAD_TOOL, Reason.BAD_MESSAGE)
