"""A version is worth the same wherever it is asked; what a server can't do, or does wrong, is told."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.builders import make_version
from tests.unit.evaluation.servers import Server, said
from tunegate.api.errors import EvaluationError, ServingError
from tunegate.api.versions import ModelVersion, Producer, Release
from tunegate.evaluation import load_suite
from tunegate.evaluation.models.local import LocalModel
from tunegate.evaluation.models.remote import RemoteModel
from tunegate.evaluation.run import evaluate
from tunegate.evaluation.sheets import Sheets
from tunegate.processes import Child, answers, free_port
from tunegate.store import Store

VERSION = make_version("test")
HELLO = [[{"role": "user", "content": str(number)}] for number in range(6)]
BLANK = Sheets(None, lambda more: None)


def ask(url: str, sheets: Sheets = BLANK, concurrency: int = 2) -> list[str | None]:
    sheet = sheets.sheet(questions=HELLO)
    with closing(RemoteModel(url, None, None, VERSION.digest, concurrency)) as model:
        model.answer(HELLO, 8, sheet)
    return sheet.answers()


def choose(url: str, texts: list[str], letters: list[str]) -> list[str | None]:
    sheet = BLANK.sheet(questions=texts)
    with closing(RemoteModel(url, None, None, VERSION.digest, 2)) as model:
        model.choose(texts, letters, sheet)
    return sheet.answers()


@pytest.fixture
def served(
    store: Store, learned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[ModelVersion, str]]:
    """Our own server of the tiny model that has learned a few answers."""
    monkeypatch.setenv("TUNEGATE_CACHE", str(tmp_path / "cache"))
    release = Release(format="huggingface")
    version = store.publish(learned, "shop/base/checkpoint-0", release=release, producer=Producer(kind="test"))
    port = free_port()
    argv = [sys.executable, "-m", "tunegate", "serve", version.name, "--port", str(port)]
    about = {"TUNEGATE_FEEDBACK_KEY": "5e" * 32, "TUNEGATE_STORE": store.uri}
    env = {**os.environ, **about, "AWS_ENDPOINT_URL": store.endpoint_url or ""}
    with Child.start("the server", argv, log=tmp_path / "server.log", env=env) as child:
        url = f"http://127.0.0.1:{port}"
        child.wait_until(lambda: answers(f"{url}/v2/health/ready"), seconds=120)
        yield version, url


@pytest.mark.usefixtures("forked_programs")
def test_a_version_scores_the_same_where_it_is_served(
    served: tuple[ModelVersion, str], learned: Path, business_folder: Path
) -> None:
    version, url = served
    suite = load_suite(business_folder)
    with closing(RemoteModel(url, None, None, version.digest, 4)) as remote:
        (there,) = evaluate(remote, version, [suite])
    (here,) = evaluate(LocalModel(learned), version, [suite])
    assert there.metrics == here.metrics
    assert there.records == here.records
    assert (there.settings, there.metrics[0].value) == ("url", 1)
    with pytest.raises(EvaluationError, match=f"serves {version.digest}, not {VERSION.digest}"):
        ask(url)


def test_questions_are_asked_greedily_and_answers_come_in_their_order() -> None:
    with Server(lambda body: said(f" {body['messages'][0]['content']}! ")) as server:
        assert ask(server.url, concurrency=4) == [f"{number}!" for number in range(6)]
    assert {(body["temperature"], body["max_tokens"], body["model"]) for body in server.bodies} == {(0, 8, "shop")}


def test_a_busy_server_is_asked_again() -> None:
    seen: list[str] = []

    def reply(body: Any) -> tuple[int, Any, dict[str, str]]:
        seen.append(question := body["messages"][0]["content"])
        return said("yes") if seen.count(question) > 2 else (429, {"error": {"message": "busy"}}, {})

    with Server(reply) as server:
        assert ask(server.url) == ["yes"] * 6


def test_what_was_answered_before_a_server_failed_is_not_asked_again(tmp_path: Path) -> None:
    def reply(body: Any) -> tuple[int, Any, dict[str, str]]:
        number = body["messages"][0]["content"]
        return said(number) if broken == "" or number < broken else (400, {"error": {"message": "too long"}}, {})

    broken, path = "3", tmp_path / "answers.jsonl"
    with Server(reply) as server:
        with pytest.raises(EvaluationError, match=r"refuses a question: .*too long"):
            ask(server.url, Sheets(path, lambda more: None), 1)
        broken, before = "", len(server.bodies)
        assert ask(server.url, Sheets(path, lambda more: None), 1) == [str(number) for number in range(6)]
        assert [body["messages"][0]["content"] for body in server.bodies[before:]] == ["3", "4", "5"]


def test_a_server_without_log_probabilities_can_not_choose() -> None:
    with Server(lambda body: said("A")) as server, pytest.raises(EvaluationError, match="set mode: chat"):
        choose(server.url, ["x"], ["A", "B"])


def test_the_likeliest_letter_that_the_server_tells_is_chosen() -> None:
    tops = {"one": {" A": -2.0, " B": -1.0, "x": -0.1}, "none": {"x": -0.1}}

    def reply(body: Any) -> tuple[int, Any, dict[str, str]]:
        status, told, headers = said(" B")
        told["choices"][0]["logprobs"] = {"top_logprobs": [tops[body["prompt"]]]}
        return status, told, headers

    with Server(reply) as server:
        assert choose(server.url, ["one", "none"], [" A", " B"]) == [" B", None]
    assert {(body["logprobs"], body["max_tokens"]) for body in server.bodies} == {(20, 1)}


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, {"error": {"message": "no such key"}}, "does not answer: .*no such key"),
        (200, {"hello": "there"}, "does not answer as OpenAI's API does"),
        (200, {"choices": []}, "does not answer as OpenAI's API does"),
    ],
)
def test_a_server_that_answers_otherwise_is_told(status: int, body: Any, words: str) -> None:
    with Server(lambda asked: (status, body, {})) as server, pytest.raises(ServingError, match=words):
        ask(server.url)


def test_a_server_that_is_away_is_told() -> None:
    with pytest.raises(ServingError, match="Nothing answers at"):
        RemoteModel(f"http://127.0.0.1:{free_port()}", None, None, VERSION.digest, 1)
