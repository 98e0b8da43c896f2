"""Releases with tools: the steps on the way to an answer, the answer as it is written, and where it has to end."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.unit.agent.sites import TALLEST, results, site
from tests.unit.serving.releases import opened, write_prompts
from tests.unit.serving.standin import MODEL, Server, embedded
from tests.waiting import wait_for
from tunegate.agent.tools import Tool
from tunegate.api.versions import Limits
from tunegate.prompts.library import BUILTIN
from tunegate.serving.limits import Embedded
from tunegate.serving.parts import Parts

SQUARE: list[Any] = [{"role": "user", "content": "What is the square of 632?"}]
RETURNS: list[Any] = [{"role": "user", "content": "How many days do I have to send something back?"}]
ACT = "Thought: I calculate.\nAction: Calculator\nInput: 632^2\n"
LOOK = "Thought: I look it up.\nAction: Knowledge base\nInput: How many days do I have to send something back?\n"
END = "Thought: I know.\nFinal Result: It is 399424,\nas calculated."
ANSWER = "It is 399424,\nas calculated."


@pytest.fixture
def dialect() -> str:
    return "react"


@pytest.fixture
def reach() -> Limits:
    return Limits()


@pytest.fixture
def parts(shop_index: Path, dialect: str, reach: Limits) -> Parts:
    return opened(index=shop_index, tools=("calculator", "knowledge"), dialect=dialect, limits=reach)


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as client:
        yield client


def beside(answer: Any) -> dict[str, Any]:
    found: dict[str, Any] = answer.model_extra["tunegate"]
    return found


def test_steps_come_as_they_are_taken_and_then_the_answer(client: openai.OpenAI, server: Server) -> None:
    server.engine.says = [ACT, END]
    chunks = list(client.chat.completions.create(model=MODEL, messages=SQUARE, stream=True))

    steps = [beside(chunk)["step"] for chunk in chunks if "tunegate" in (chunk.model_extra or {})]
    assert [(it["number"], it["thought"], it["tool"], it["input"], it["observation"]) for it in steps] == [
        (1, "I calculate.", "calculator", "632^2", "399424")
    ]
    texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content]
    assert "".join(texts) == ANSWER
    assert len(texts) > 3  # it streams
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert server.count("tunegate_tool_calls_total", tool="calculator", outcome="found") == 1
    first, second = server.engine.asked
    assert "Observation:" in first["stop"]
    assert second["messages"][-2]["content"] == ACT.strip()
    assert "399424" in second["messages"][-1]["content"]


def test_a_whole_answer_has_its_steps_and_earlier_turns(client: openai.OpenAI, server: Server) -> None:
    server.engine.says = [ACT, END]
    before: list[Any] = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi."},
    ]
    answer = client.chat.completions.create(model=MODEL, messages=[*before, *SQUARE], temperature=0.5)

    assert answer.choices[0].message.content == ANSWER
    assert [step["tool"] for step in beside(answer)["steps"]] == ["calculator"]
    asked = server.engine.asked[0]
    assert asked["messages"][:3] == before
    assert (asked["temperature"], asked["max_tokens"]) == (0.5, 300)


def test_what_a_tool_finds_is_a_source_that_the_answer_can_cite(client: openai.OpenAI, server: Server) -> None:
    server.engine.says = [LOOK, "Final Result: Within 14 days [1], see [9]."]
    answer = client.chat.completions.create(model=MODEL, messages=RETURNS)

    assert answer.choices[0].message.content == "Within 14 days [1], see."
    assert [note.url_citation.url for note in answer.choices[0].message.annotations or []] == ["help_en.md"]
    assert beside(answer)["cited"] == [1]
    assert beside(answer)["sources"][0]["title"].endswith("Returns and refunds")


def test_a_step_that_fails_is_seen_and_counted(client: openai.OpenAI, server: Server) -> None:
    server.engine.says = [
        "Action: Calculator\nInput: two times two",
        "Action: Telephone\nInput: 110",
        "Final Result: I can't.",
    ]
    answer = client.chat.completions.create(model=MODEL, messages=SQUARE)

    assert [step["failed"] for step in beside(answer)["steps"]] == [True, True]
    assert server.count("tunegate_tool_calls_total", tool="calculator", outcome="failed") == 1
    assert server.count("tunegate_tool_calls_total", tool="unknown", outcome="failed") == 1


@pytest.mark.parametrize("reach", [Limits(steps=1)])
def test_at_a_limit_the_answer_is_what_is_known_by_then(client: openai.OpenAI, server: Server) -> None:
    server.engine.says = [ACT, "Some number."]
    answer = client.chat.completions.create(model=MODEL, messages=SQUARE)

    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("Some number.", "length")
    assert "Use no tool" in server.engine.asked[-1]["messages"][-1]["content"]


@pytest.mark.parametrize("reach", [Limits(seconds=0.2)])
def test_a_text_without_an_end_is_cut_off_in_time(client: openai.OpenAI, server: Server) -> None:
    server.engine.endless = True
    answer = client.chat.completions.create(model=MODEL, messages=SQUARE)

    assert (answer.choices[0].finish_reason, answer.usage) == ("length", None)
    assert "xxxx" in (answer.choices[0].message.content or "")
    assert len(server.engine.asked) == 2
    assert server.engine.ended.wait(100)


def test_a_stop_string_ends_the_answer_alone(client: openai.OpenAI, server: Server) -> None:
    server.engine.says = [ACT, END]
    answer = client.chat.completions.create(model=MODEL, messages=SQUARE, stop=[",", "Action"])

    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("It is 399424", "stop")


@pytest.mark.parametrize("limits", [embedded(4000)])
def test_the_embedded_engine_stops_before_it_observes(
    client: openai.OpenAI, server: Server, limits: Embedded | None
) -> None:
    server.engine.says = [ACT + "Observation: 7\nFinal Result: 7", END]
    answer = client.chat.completions.create(model=MODEL, messages=SQUARE)

    assert answer.choices[0].message.content == ANSWER
    assert answer.usage is None


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "function", "function": {"name": "search", "parameters": {"type": "object"}}}]},
        {"response_format": {"type": "json_object"}},
        {"n": 2},
    ],
)
def test_what_would_pass_the_agent_by_is_refused_by_name(
    client: openai.OpenAI, server: Server, fields: Mapping[str, Any]
) -> None:
    with pytest.raises(openai.BadRequestError, match=next(iter(fields))):
        client.chat.completions.create(model=MODEL, messages=SQUARE, **fields)

    assert server.engine.asked == []


class TestThatHangs:
    """A tool that never answers."""

    @pytest.fixture
    def gone(self) -> list[str]:
        return []

    @pytest.fixture
    def parts(self, parts: Parts, gone: list[str]) -> Parts:
        async def hang(text: str) -> str:
            gone.append("asked")
            try:
                await asyncio.Event().wait()
            finally:
                gone.append("left")
            return ""

        def hanging(tool: Tool) -> Tool:
            return replace(tool, call=hang, seconds=1000 if "wait" in gone else 0.05)

        tools = {language: tuple(map(hanging, each)) for language, each in parts.tools.items()}
        return replace(parts, tools=tools)

    def test_is_given_up(self, client: openai.OpenAI, server: Server, gone: list[str]) -> None:
        server.engine.says = [ACT, "Final Result: I don't know."]
        answer = client.chat.completions.create(model=MODEL, messages=SQUARE)

        assert beside(answer)["steps"][0]["observation"] == "Calculator did not answer within 0.05 seconds."
        assert answer.choices[0].message.content == "I don't know."
        assert gone == ["asked", "left"]


class TestThatIsLeft(TestThatHangs):
    """The same, with much patience."""

    @pytest.fixture
    def gone(self) -> list[str]:
        return ["wait"]

    def test_is_given_up(self, client: openai.OpenAI, server: Server, gone: list[str]) -> None:
        server.engine.says = [ACT]
        with closing(http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=100)) as connection:
            connection.request("POST", "/v1/chat/completions", json.dumps({"model": MODEL, "messages": SQUARE}))
            wait_for(lambda: gone[-1] == "asked", what="the tool to be asked")

        wait_for(lambda: gone[-1] == "left", what="the tool to be left")
        wait_for(
            lambda: server.count("tunegate_answer_errors_total", reason="disconnect") == 1,
            what="the client to be counted",
        )


@pytest.mark.parametrize("dialect", ["openai"])
def test_a_model_may_ask_by_tool_calls(client: openai.OpenAI, server: Server) -> None:
    function = {"name": "calculator", "arguments": json.dumps({"expression": "632^2"})}
    call = {"index": 0, "id": "call_1", "type": "function", "function": function}
    server.engine.says = [[{"content": "I calculate."}, {"tool_calls": [call]}], "It is 399424."]
    chunks = list(client.chat.completions.create(model=MODEL, messages=SQUARE, stream=True))

    (step,) = [beside(chunk)["step"] for chunk in chunks if "tunegate" in (chunk.model_extra or {})]
    assert (step["thought"], step["tool"], step["observation"]) == ("I calculate.", "calculator", "399424")
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "It is 399424."
    first, second = server.engine.asked
    assert [tool["function"]["name"] for tool in first["tools"]] == ["calculator", "knowledge"]
    assert second["messages"][-1]["tool_call_id"] == "call_1"


class TestOwnPrompt:
    """A release's own prompt: with a system message, its own words for the tools, and no length."""

    @pytest.fixture
    def parts(self, shop_index: Path, tmp_path: Path, reach: Limits, dialect: str) -> Parts:
        text = (
            "---\nvariables:\n  question: {type: text, description: What is asked.}\n---\n--- system\n"
            "You have a Calculator.\n--- user\n{{ question | fence }}\n"
        )
        prompts = write_prompts(tmp_path / "prompts", react=text, tools=text)
        tools = ("calculator", "knowledge")
        return opened(prompts, shop_index, tools=tools, dialect=dialect, limits=reach)

    @pytest.mark.parametrize("dialect", ["react", "openai"])
    def test_its_system_message_is_the_one_that_comes_first(self, client: openai.OpenAI, server: Server) -> None:
        server.engine.says = ["Final Result: Yes."]
        tool: list[Any] = [
            {"role": "assistant", "content": None, "tool_calls": []},
            {"role": "tool", "tool_call_id": "1", "content": "sunny"},
        ]
        before: list[Any] = [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Hello"},
            *tool,
            {"role": "assistant", "content": "Hi."},
        ]
        client.chat.completions.create(model=MODEL, messages=[*before, *SQUARE])

        system, *turns, question = server.engine.asked[0]["messages"]
        assert system == {"role": "system", "content": "You have a Calculator.\n\nBe kind."}
        assert turns == [before[1], before[-1]]
        assert question["role"] == "user"

    @pytest.mark.parametrize("reach", [Limits(tokens=1)])
    def test_is_answered_once_more_when_all_tokens_are_used(self, client: openai.OpenAI, server: Server) -> None:
        server.engine.says = [ACT, "Final Result: It is 399424."]
        answer = client.chat.completions.create(model=MODEL, messages=SQUARE)

        assert answer.choices[0].message.content == "It is 399424."
        assert [asked["max_tokens"] for asked in server.engine.asked] == [1, 1]


class TestOneSearch:
    """A release that searches once before the answer."""

    @pytest.fixture
    def parts(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Parts]:
        prompts = write_prompts(tmp_path / "prompts", search_en=(BUILTIN / "search-en.prompt").read_text())
        with site({"/search": results([TALLEST])}) as searxng:
            monkeypatch.setenv("TUNEGATE_SEARCH_URL", searxng.url)
            yield opened(prompts, tools=("search",), dialect="once")

    @pytest.mark.parametrize(
        ("question", "language"), [("What is the tallest building?", "English"), ("哪座楼最高？", "Chinese")]
    )
    def test_answers_by_the_search_prompt(
        self, client: openai.OpenAI, server: Server, question: str, language: str
    ) -> None:
        server.engine.says = ["Shanghai Tower [1], of 632 meters [7]."]
        asked: list[Any] = [{"role": "user", "content": question}]
        chunks = list(client.chat.completions.create(model=MODEL, messages=asked, stream=True))

        texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content]
        assert "".join(texts) == "Shanghai Tower [1], of 632 meters."
        assert len(texts) > 3  # it streams
        (request,) = server.engine.asked
        prompt = request["messages"][-1]["content"]
        assert prompt.startswith("Web search results:<data-")
        assert "[1] Shanghai Tower (2026-03-01, " in prompt
        assert prompt.endswith(f"Response language: {language}")
        assert chunks[-1].choices[0].finish_reason == "stop"
