"""What the log keeps of answers, in every way in which they are given."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import openai
import pytest

from tests.documents import Documents
from tests.unit.serving.standin import DIGEST, KEY, MODEL, USAGE, VERSION, Server, embedded, now
from tests.waiting import wait_for
from tunegate.api import environment
from tunegate.api.errors import ServingError
from tunegate.api.feedback import step_tag
from tunegate.api.traffic import STEP_HEADER
from tunegate.api.versions import Release
from tunegate.feedback import ResponseIds, spool
from tunegate.feedback.interactions import Interaction, ReleaseParts, days, read_day
from tunegate.feedback.spool import InteractionLog
from tunegate.prompts import load_template
from tunegate.serving.app import _recorder
from tunegate.serving.config import ServeConfig
from tunegate.serving.events import Ask, Event, Finished, Source, Sources, Step, Text
from tunegate.serving.parts import Parts
from tunegate.serving.recording import Heard, Recorder

PREFIX = 'a "model":"/models/x@main" '


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "SEGMENT_SECONDS", 0.05)


def logged(store: Documents, count: int = 1) -> list[Interaction]:
    def found() -> list[Interaction]:
        return [interaction for day in days(store) for interaction in read_day(store, day, [])]

    wait_for(lambda: len(found()) >= count, what=f"{count} answers in the log")
    return found()


def ask(server: Server, text: str, headers: dict[str, str] | None = None, **more: Any) -> Any:
    client = openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)
    said = [{"role": "user", "content": text}]
    return client.chat.completions.create(model=MODEL, messages=said, extra_headers=headers, **more)  # type: ignore[call-overload]


def test_an_answer_in_one_piece_is_logged_with_its_numbers_and_texts(server: Server) -> None:
    answer = ask(server, "hi", {STEP_HEADER: "shop-run-7/1", "x-conversation-id": "c-1"}, user="anna")
    (found,) = logged(server.store)
    read = server.ids.read(answer.id)

    assert (found.id, found.model, found.digest, found.answered) == (answer.id, MODEL, DIGEST, now())
    assert (found.step, found.user) == (step_tag("shop-run-7", 1), read.user)
    assert found.conversation == server.ids.tag_of_conversation("c-1")
    assert (found.input_tokens, found.output_tokens) == (USAGE["prompt_tokens"], USAGE["completion_tokens"])
    assert (found.finish, found.first_text_seconds, found.seconds > 0) == ("stop", None, True)
    assert found.content
    assert found.content.messages == ({"role": "user", "content": "hi"},)
    assert found.content.answer == "Blue."


@pytest.mark.parametrize("limits", [None, embedded()], ids=["passed through", "written"])
def test_a_stream_is_logged_as_it_was_heard(server: Server) -> None:
    answer = [*ask(server, "hi", stream=True)]
    (found,) = logged(server.store)

    assert found.id == answer[0].id
    assert found.finish == "stop"
    assert found.first_text_seconds is not None
    assert 0 < found.first_text_seconds <= found.seconds
    assert found.content
    assert found.content.answer == PREFIX + "夏"


def test_whoever_it_is_stays_out_of_the_log(server: Server, tmp_path: Path) -> None:
    server.engine.says = ["打13812345678"]
    ask(server, "我叫李雷，邮箱li.lei@example.com", user="li.lei", stream=True)
    list(ask(server, "hi", {"x-conversation-id": "li.lei@example.com"}, stream=True))
    first, second = logged(server.store, 2)
    texts = json.dumps([str(first), str(second)], ensure_ascii=False)
    assert "打<phone>" in texts
    assert "我叫<name>，邮箱<email>" in texts
    assert "li.lei" not in texts
    assert "13812345678" not in texts


@pytest.mark.parametrize(
    ("question", "finish"), [("break off", "engine"), ("report", "engine"), ("fail", "engine"), ("refuse", "request")]
)
def test_an_answer_that_fails_is_logged_with_the_reason(server: Server, question: str, finish: str) -> None:
    with pytest.raises((openai.OpenAIError, httpx.HTTPError)):
        list(ask(server, question, stream=True))
    (found,) = logged(server.store)
    assert found.finish == finish
    assert found.content
    assert found.content.answer == (PREFIX if question in ("break off", "report") else "")


def test_an_answer_that_nobody_reads_to_its_end_is_logged_as_far_as_it_came(server: Server) -> None:
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "go on"}], "stream": True}).encode()
    with urllib.request.urlopen(
        urllib.request.Request(f"{server.url}/v1/chat/completions", body), timeout=100
    ) as reply:
        reply.readline()
    (found,) = logged(server.store)
    assert found.finish == "disconnect"
    assert found.content
    assert found.content.answer.startswith(PREFIX)


def test_a_prompt_is_logged_as_a_users_message(server: Server) -> None:
    client = openai.OpenAI(base_url=server.url + "/v1", api_key="none")
    client.completions.create(model=MODEL, prompt="Once")
    (found,) = logged(server.store)
    assert found.content
    assert found.content.messages == ({"role": "user", "content": "Once"},)


class Log:
    def __init__(self) -> None:
        self.made: list[Interaction] = []

    def add(self, make: Callable[[], Interaction]) -> None:
        self.made.append(make())


@pytest.fixture
def log() -> Log:
    return Log()


def heard(*events: Event) -> Heard:
    ask = Ask(MODEL, messages=[{"role": "user", "content": "多少钱？"}])
    answer = ResponseIds(KEY, MODEL).issue(DIGEST, now())
    return Heard(answer, now(), None, ask, "", [*events], seconds=2.0)


def test_steps_sources_and_the_template_are_logged(log: Log) -> None:
    template = load_template("knowledge-zh")
    release = ReleaseParts(prompts=DIGEST, knowledge=DIGEST, tools=("calculator",))
    parts = Parts({"zh": template})
    recorder = Recorder(cast(InteractionLog, log), ResponseIds(KEY, MODEL), MODEL, DIGEST, release, parts)
    source = Source(1, "茶", "docs/tea.md", 0.9, "龙井128元")
    steps = [Step(1, "", "calculator", "2*3", "6", 0.1), Step(2, "", "calculator", "x", "no", 0.1, failed=True)]
    recorder.add(heard(Sources((source,)), *steps, Text("想", True), Text("128元"), Finished("stop", USAGE)))
    (found,) = log.made

    assert found.release == release
    assert found.prompt_template == f"{Path(template.source).name}@{template.digest}"
    assert (found.tools, found.tool_failures, found.sources) == ({"calculator": 2}, 1, 1)
    assert found.content
    assert (found.content.answer, found.content.reasoning) == ("128元", "想")
    assert found.content.sources[0]["uri"] == "docs/tea.md"
    assert [step["input"] for step in found.content.steps] == ["2*3", "x"]

    replace(recorder, content=False).add(heard(*steps, Text("128元"), Finished("stop", USAGE)))
    without = log.made[1]
    assert without.content is None
    assert (without.tools, without.output_tokens, without.seconds) == ({"calculator": 2}, 2, 2.0)


def test_an_answer_that_was_never_heard_is_logged_all_the_same(log: Log) -> None:
    recorder = Recorder(cast(InteractionLog, log), ResponseIds(KEY, MODEL), MODEL, DIGEST, ReleaseParts())
    recorder.add(heard())
    assert log.made[0].finish == "unknown"
    assert log.made[0].prompt_template is None


def test_a_folder_that_can_not_be_written_ends_the_server_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(environment.CACHE, str(tmp_path / "file"))
    served = SimpleNamespace(version=VERSION, release=Release(format="huggingface"))
    store = SimpleNamespace(uri="s3://models", endpoint_url=None)
    config = SimpleNamespace(served=served, store=store, model=MODEL, log_content=True)
    with pytest.raises(ServingError, match=r"can't be written: .*; name a folder that can be with TUNEGATE_CACHE"):
        _recorder(cast(ServeConfig, config), ResponseIds(KEY, MODEL), None)
    monkeypatch.setenv(environment.CACHE, str(tmp_path / "cache"))
    _recorder(cast(ServeConfig, config), ResponseIds(KEY, MODEL), None).log.close()
