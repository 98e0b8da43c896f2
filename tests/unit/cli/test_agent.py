"""`tunegate agent ask` against a server in OpenAI's protocol."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.answering import answering
from tests.unit.agent.sites import TALLEST, Answer, results, site
from tests.unit.agent.vllm import called, said, vllm
from tunegate.cli import main
from tunegate.shop import DATA

QUESTION = "What is the square of 632?"


def scripted(question: str) -> str:
    if "Observation:" in question.rpartition("Start!")[2]:
        return "Thought: Final Result: It is 399424."
    return "Thought: I calculate.\nAction: Calculator\nInput: 632^2\n"


def agent(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["agent", "ask", *words])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_each_step_is_shown_and_then_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    with answering(scripted) as (url, asked):
        assert agent(QUESTION, "--url", url) == 0

    assert capsys.readouterr().out == "1. I calculate.\n   Calculator: 632^2\n   -> 399424\nIt is 399424.\n"
    assert asked[0]["stop"] == ["Observation:"]
    assert asked[0]["max_tokens"] == 300
    assert QUESTION in asked[0]["messages"][0]["content"]


def test_scripts_get_the_events(capsys: pytest.CaptureFixture[str]) -> None:
    with answering(scripted) as (url, _):
        assert agent(QUESTION, "--url", url, "--format", "json") == 0

    step, answered = json.loads(capsys.readouterr().out)
    assert (step["tool"], step["observation"]) == ("Calculator", "399424")
    assert answered == {"text": "It is 399424.", "reason": "answer", "steps": 1, "tokens": 0}


def test_the_prompt_is_in_the_language_of_the_question() -> None:
    with answering(lambda _: "最终结果：399424") as (url, asked):
        assert agent("632的平方是多少？", "--url", url) == 0
        assert agent("632的平方是多少？", "--url", url, "--language", "en") == 0

    assert [body["messages"][0]["content"][:2] for body in asked] == ["尽可", "An"]


def test_a_limit_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with answering(lambda question: "Action: Calculator\nInput: 1+1") as (url, _):
        assert agent(QUESTION, "--url", url, "--steps", "1") == 0

    assert "It was asked to end: the limit is steps." in capsys.readouterr().err


def test_an_engine_that_can_not_stop_is_cut_off_here(capsys: pytest.CaptureFixture[str]) -> None:
    def goes_on(question: str) -> str:
        return scripted(question) + "\nObservation: 7\nThought: Final Result: 7"

    with answering(goes_on, stops=False) as (url, asked):
        assert agent(QUESTION, "--url", url) == 0

    assert capsys.readouterr().out.endswith("It is 399424.\n")
    assert ["stop" in body for body in asked] == [True, False, False]
    assert asked[2]["messages"][1]["content"] == "Thought: I calculate.\nAction: Calculator\nInput: 632^2"


@pytest.fixture
def index(tmp_path: Path) -> Path:
    (tmp_path / "help.md").write_text("# Help\n\n## Returns\n\nSend it back within 14 days.\n")
    with pytest.raises(SystemExit) as ended:
        main(
            [
                "knowledge",
                "build",
                "help",
                str(tmp_path / "help.md"),
                "--into",
                str(tmp_path / "index"),
                "--embedder",
                "none",
            ]
        )
    assert ended.value.code == 0
    return tmp_path / "index"


def test_each_tool_that_gets_what_it_needs_may_be_called(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with site({"/search": results([TALLEST]), "/help/a": Answer("Free from $30.", "text/plain")}) as web:
        calls = called(
            ("search", '{"query": "tower"}'),
            ("knowledge", '{"question": "Can I send it back?"}'),
            ("catalogue", '{"query": "SO-103"}'),
            ("http", json.dumps({"url": f"{web.url}/help/a"})),
            ("calculator", '{"expression": "632^2"}'),
        )
        given = ("--search", web.url, "--knowledge", str(index), "--http-allow", f"{web.url}/help")
        table = ("--catalogue", str(DATA / "knowledge" / "products_en.csv"))
        with vllm([calls, said("All of it [4].")]) as (url, asked):
            assert agent(QUESTION, "--url", url, "--dialect", "openai", "--format", "json", *given, *table) == 0

    assert [tool["function"]["name"] for tool in asked[0]["tools"]] == [
        "calculator",
        "knowledge",
        "catalogue",
        "search",
        "http",
    ]
    assert asked[0]["max_tokens"] == 400
    *steps, last = json.loads(capsys.readouterr().out)
    assert [step["sources"][0]["title"] for step in steps[:4]] == [
        "Shanghai Tower",
        "Help > Returns",
        "Sobrin kettle",
        f"{web.url}/help/a",
    ]
    assert (last["text"], last["steps"]) == ("All of it [4].", 5)


def test_one_search_may_come_before_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    with (
        site({"/search": results([TALLEST])}) as web,
        answering(lambda _: "It is 632 meters tall [1].") as (url, asked),
    ):
        assert agent(QUESTION, "--url", url, "--dialect", "once", "--search", web.url) == 0

    assert asked[0]["messages"][0]["content"].startswith("Web search results:<data-")
    assert "\nCurrent date:20" in asked[0]["messages"][0]["content"]
    assert capsys.readouterr().out.endswith("\nIt is 632 meters tall [1].\n")


def test_once_needs_one_tool(capsys: pytest.CaptureFixture[str]) -> None:
    with answering(scripted) as (url, _):
        assert agent(QUESTION, "--url", url, "--dialect", "once") == 2

    assert "--dialect once asks one tool; give it what it needs" in capsys.readouterr().err
