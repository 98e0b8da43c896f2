"""`tunegate agent ask` against a server in OpenAI's protocol."""

from __future__ import annotations

import json

import pytest

from tests.answering import answering
from tunegate.cli import main

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
