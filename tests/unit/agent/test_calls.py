"""Tool calls through a server that behaves as vLLM does; tools are real functions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import pytest

from tests.unit.agent.vllm import called, said, vllm
from tunegate.agent import CALCULATOR, Answered, Limits, Source, Taken, Tool, calls
from tunegate.agent.steps import Reply
from tunegate.api.errors import EvaluationError
from tunegate.evaluation.models.http import HttpModel
from tunegate.prompts import Message
from tunegate.prompts.template import Limits as Bounds

QUESTION = "What is the tallest building in Shanghai? What is the square of its height?"
TOWER = Source("Shanghai Tower", "632 meters", "https://example.com/tower", date="2026-03-01")


def search(*answers: str | tuple[Source, ...]) -> Tool:
    left = list(answers)

    async def call(query: str) -> str | tuple[Source, ...]:
        return left.pop(0)

    return Tool(("Search API", "搜索API"), ("finds facts", "查找事实"), call, key="search", takes=("query", "a", "b"))


def run(
    answers: Sequence[dict[str, Any]], *tools: Tool, question: str = QUESTION, parser: bool = True, **options: Any
) -> tuple[list[Taken | Answered], list[dict[str, Any]]]:
    async def collect(answerer: HttpModel) -> list[Taken | Answered]:
        async def model(*given: Any) -> Reply:
            return await asyncio.to_thread(answerer.calls, *given, Bounds(max_tokens=100))

        return [event async for event in calls.ask(question, tools, model, nonce="8f3a", **options)]

    with vllm(answers, parser=parser) as (url, asked), closing(HttpModel(url, "shop", None)) as answerer:
        return asyncio.run(collect(answerer)), asked


def test_the_tallest_building_of_shanghai_squared() -> None:
    (first, second, last), asked = run(
        [
            called(("search", '{"query": "tallest building in Shanghai"}'), text="I look it up."),
            called(("calculator", '{"expression": "632^2"}')),
            said("It is 632 meters tall [1][7], and its height squared is 399424."),
        ],
        search((TOWER,)),
        CALCULATOR,
        clock=lambda: 0.0,
    )

    numbered = Source("Shanghai Tower", "632 meters", "https://example.com/tower", date="2026-03-01", number=1)
    shown = "[1] Shanghai Tower (2026-03-01, https://example.com/tower)\n632 meters"
    assert first == Taken(1, "I look it up.", "search", "tallest building in Shanghai", shown, 0.0, sources=(numbered,))
    assert second == Taken(2, "", "calculator", "632^2", "399424", 0.0)
    assert last == Answered("It is 632 meters tall [1], and its height squared is 399424.", "answer", 2, 30)
    assert [tool["function"]["name"] for tool in asked[0]["tools"]] == ["search", "calculator"]
    assert asked[0]["tool_choice"] == "auto"
    assert [message["role"] for message in asked[2]["messages"]] == ["user", "assistant", "tool", "assistant", "tool"]
    assert asked[2]["messages"][2]["content"].startswith(f"<data-8f3a>\n{shown}\n</data-8f3a>\nWhat stands between")
    assert asked[2]["messages"][4]["content"] == "<data-8f3a>\n399424\n</data-8f3a>"
    assert f"<data-8f3a>\n{QUESTION}\n</data-8f3a>" in asked[0]["messages"][0]["content"]


def test_calls_at_once_are_asked_at_once_and_answered_in_order() -> None:
    begun, both = asyncio.Event(), {"a", "b"}

    async def call(query: str) -> str:
        both.discard(query)
        if not both:
            begun.set()
        await asyncio.wait_for(begun.wait(), 10)  # neither answers before both were asked
        return f"found {query}"

    tool = Tool(("Search",), ("x",), call, key="search", takes=("query", "a", "b"))
    (one, two, last), asked = run(
        [called(("search", '{"query": "a"}'), ("search", '{"query": "b"}')), said("ok")], tool
    )

    assert [(step.number, step.observation) for step in (one, two) if isinstance(step, Taken)] == [
        (1, "found a"),
        (2, "found b"),
    ]
    assert isinstance(last, Answered)
    assert [message.get("tool_call_id") for message in asked[1]["messages"]] == [None, None, "call_0", "call_1"]


BROKEN = {
    "no JSON": ('{"expression": 1+', "can't be read (Expecting"),
    "no object": ("[1]", "can't be read (expression)"),
    "another field": ('{"a": 1, "b": 2}', "can't be read (expression)"),
    "nothing": ("", "can't be read (Expecting value"),
    "nested": ('{"expression": {"a": 1}}', "can't be read (expression)"),
    "null": ("null", "can't be read (expression)"),
}


@pytest.mark.parametrize(("arguments", "observed"), BROKEN.values(), ids=BROKEN)
def test_arguments_that_are_none_are_told_and_sent_back_as_json(arguments: str, observed: str) -> None:
    (step, _), asked = run([called(("calculator", arguments)), said("ok")], CALCULATOR)

    assert isinstance(step, Taken)
    assert observed in step.observation
    assert step.observation.endswith('write JSON such as {"expression": "..."}.')
    again = asked[1]["messages"][1]["tool_calls"][0]["function"]["arguments"]
    assert json.loads(again) == {"expression": arguments}


@pytest.mark.parametrize("arguments", ['{"expression": "6*7"}', '{"input": "6*7"}', '"6*7"', '{"expression": 42}'])
def test_arguments_are_read_as_far_as_they_are_clear(arguments: str) -> None:
    (step, _), _ = run([called(("Calculator", arguments)), said("ok")], CALCULATOR)

    assert isinstance(step, Taken)
    assert step.observation == "42"


def test_a_tool_that_there_is_not_is_told_and_three_end_it() -> None:
    *steps, last = run([*(called(("browse", f'{{"n": {n}}}')) for n in range(3)), said("then so")], CALCULATOR)[0]

    assert [step.observation for step in steps if isinstance(step, Taken)] == [
        "There is no tool browse. The tools are: Calculator, 计算器."
    ] * 3
    assert last == Answered("then so", "unknown tools", 3, 40)


def test_at_a_limit_each_call_is_answered_and_the_last_answer_is_without_tools() -> None:
    three = called(*(("calculator", f'{{"expression": "{n}+1"}}') for n in range(3)))
    events, asked = run([three, called(("calculator", "{}"), text="It is 3.")], CALCULATOR, limits=Limits(steps=2))

    assert [event.observation for event in events if isinstance(event, Taken)] == ["1", "2"]
    assert events[-1] == Answered("It is 3.", "steps", 2, 20)
    assert asked[1]["tool_choice"] == "none"
    assert asked[1]["messages"][-2]["content"] == "This was not asked: no further step is allowed."
    assert asked[1]["messages"][-1]["content"].startswith("Call no tool any more.")


def test_tokens_and_seconds_are_limits_too() -> None:
    one = called(("calculator", '{"expression": "1+1"}'))
    assert run([one, said("2")], CALCULATOR, limits=Limits(tokens=10))[0][-1] == Answered("2", "tokens", 1, 20)
    now = iter([0.0, 0.0, 0.0, 0.0, 99.0])
    events, _ = run([one, said(None)], CALCULATOR, clock=lambda: next(now))
    assert events[-1] == Answered("No answer was found within what is allowed.", "seconds", 1, 20)


def test_the_same_call_again_is_told_so_and_not_made() -> None:
    same = called(("search", '{"query": "a"}'))
    (_, again, _), _ = run([same, same, said("b")], search("found"))

    assert isinstance(again, Taken)
    assert again.observation.startswith("This was asked before")


def test_a_source_that_is_found_again_has_its_number_again() -> None:
    other = Source("Other", "600 meters", "https://example.com/other")
    (first, second, _), _ = run(
        [called(("search", '{"query": "a"}')), called(("search", '{"query": "b"}')), said("ok")],
        search((TOWER,), (other, TOWER)),
    )

    assert isinstance(first, Taken)
    assert isinstance(second, Taken)
    assert [source.number for source in first.sources + second.sources] == [1, 2, 1]


def test_a_model_that_says_nothing_is_told_once_and_then_answers_as_it_can() -> None:
    events, asked = run([said(""), said(None), said("<think>hm</think>632")], CALCULATOR, language="zh")

    assert events == [Answered("632", "format", 0, 30)]
    assert asked[1]["messages"][-1]["content"] == "请调用工具，或者回答问题。"


def test_the_models_own_control_tokens_are_broken_up_wherever_they_come_from() -> None:
    own = called(("search", '{"query": "<own>"}'), text="<own>")
    _, asked = run([own, said("ok")], search("<own>"), question="<own>?", control_tokens=("<own>",))

    assert "<own>" not in json.dumps(asked[1]["messages"])
    assert json.dumps(asked[1]["messages"]).count("< own>") == 4


def test_it_goes_on_from_a_system_message_and_earlier_turns() -> None:
    before = [Message("system", "You are Xuan."), Message("user", "Hi"), Message("assistant", "Hello!")]
    _, asked = run([said("ok")], CALCULATOR, before=before)

    assert [message["role"] for message in asked[0]["messages"]] == ["system", "user", "assistant", "user"]


def test_a_server_without_a_parser_says_how_to_start_it() -> None:
    with pytest.raises(EvaluationError, match="requires --enable-auto-tool-choice and --tool-call-parser to be set"):
        run([said("ok")], CALCULATOR, parser=False)
