"""DashScope's SDK, unmodified, against our server over HTTP."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import dashscope
import pytest
from dashscope import Generation
from dashscope.aigc.generation import AioGeneration
from dashscope.api_entities.aio_session import close_shared_aio_session
from dashscope.api_entities.http_request import close_shared_sync_session

from tests.unit.serving.golden import transcript
from tests.unit.serving.standin import DIGEST, MODEL, Server

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
SAID = 'a "model":"/models/x@main" 夏'


@pytest.fixture(autouse=True)
def pointed_at(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(dashscope, "base_http_api_url", f"{server.url}/api/v1")
    monkeypatch.setattr(dashscope, "api_key", "none")
    yield
    close_shared_sync_session()
    gc.collect()  # the SDK leaves the sockets of streams to the garbage collector


def call(**fields: Any) -> Any:
    return Generation.call(model=fields.pop("model", MODEL), **fields)


def test_the_articles_loop_prints_the_growing_text(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.engine.script = [transcript("dashscope-article").engine]

    response_generator = Generation.call(
        model=MODEL, prompt="<|im_start|>user\nhi", stream=True, use_raw_prompt=True, seed=1234
    )
    for resp in response_generator:
        if resp.status_code == HTTPStatus.OK:
            print(resp.output)
        else:
            print(f"Failed request_id: {resp.request_id}, status_code: {resp.status_code}, code: {resp.code}")

    assert capsys.readouterr().out.splitlines() == [
        '{"text": "汝亦来", "finish_reason": "null", "choices": null}',
        '{"text": "汝亦来哉,幸会。", "finish_reason": "null", "choices": null}',
        '{"text": "汝亦来哉,幸会。", "finish_reason": "stop", "choices": null}',
    ]
    assert server.engine.paths == ["/v1/completions"]
    assert server.engine.asked[0]["prompt"] == "<|im_start|>user\nhi"
    assert server.engine.asked[0]["seed"] == 1234


def test_a_list_as_prompt_is_a_chat_under_the_releases_prompt(server: Server) -> None:
    messages = [{"role": "user", "content": "query"}]
    answer = call(prompt=messages, use_raw_prompt=True)

    assert (answer.status_code, answer.output.text, answer.output.finish_reason) == (200, SAID, "stop")
    assert server.engine.asked[0]["messages"] == [{"role": "system", "content": "Be brief."}, *messages]


def test_the_request_id_is_the_signed_id_of_the_answer(server: Server) -> None:
    answer = call(prompt="hi")

    assert server.ids.read(answer.request_id).digest == DIGEST
    assert answer.headers["x-request-id"] == answer.request_id
    assert server.count("tunegate_answers_total") == 1


def test_history_and_sampling_reach_the_engine(server: Server) -> None:
    sampling = {"temperature": 0.95, "top_p": 0.7, "top_k": 5, "max_tokens": 50, "seed": 7, "repetition_penalty": 1.1}
    call(prompt="query", history=[{"user": "a", "bot": "b"}], stop=["x"], enable_search=False, **sampling)
    (asked,) = server.engine.asked

    assert {name: asked[name] for name in sampling} == sampling
    assert asked["stop"] == ["x"]
    assert [message["content"] for message in asked["messages"]] == ["Be brief.", "a", "b", "query"]


def test_pieces_come_where_they_are_asked_for(server: Server) -> None:
    pieces = list(call(prompt="hi", stream=True, incremental_output=True, result_format="message"))

    assert "".join(piece.output.choices[0].message.content for piece in pieces) == SAID
    assert [piece.output.choices[0].finish_reason for piece in pieces] == ["null"] * (len(pieces) - 1) + ["stop"]


def test_the_sdks_own_joining_of_pieces_is_not_answered_with_joined_text(server: Server) -> None:
    events = list(call(prompt="hi", stream=True, incremental_output=False, result_format="message"))

    assert events[-1].output.choices[0].message.content == SAID


def test_tool_calls_arrive_whole(server: Server) -> None:
    server.engine.script = [transcript("dashscope-tools").engine]
    answer = call(
        messages=[{"role": "user", "content": "a tv?"}],
        tools=[{"type": "function", "function": {"name": "search"}}],
        result_format="message",
    )
    choice = answer.output.choices[0]

    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls[0]["function"] == {"name": "search", "arguments": '{"q":"tv"}'}
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (5, 3)


@pytest.mark.parametrize(
    ("fields", "status", "code", "said"),
    [
        ({"model": "other/model", "prompt": "hi"}, 404, "ModelNotFound", MODEL),
        ({"prompt": "hi", "beam": 3}, 400, "InvalidParameter", "parameters.beam"),
        ({"prompt": "hi", "top_p": 3}, 400, "InvalidParameter", "parameters.top_p: Expected `float` <= 1.0"),
        ({"prompt": "hi", "enable_search": True}, 400, "InvalidParameter", "enable_search"),
        ({"prompt": "hi", "n": 2}, 400, "InvalidParameter", "parameters.n"),
        ({"prompt": "x" * 10_000_000}, 413, "InvalidParameter", "send less text"),
        ({"prompt": "fail"}, 502, "InternalError", "engine failed"),
        ({"prompt": "refuse"}, 400, "InvalidParameter", "too clever"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_error_has_its_status_code_and_words(
    fields: dict[str, Any], status: int, code: str, said: str, stream: bool
) -> None:
    called = call(**fields, stream=stream)
    for answer in called if stream else [called]:
        assert (answer.status_code, answer.code) == (status, code)
        assert said in answer.message
        assert answer.request_id


@pytest.mark.parametrize("text", ["break off", "report"])
def test_a_failure_within_a_stream_is_an_event_with_its_status(server: Server, text: str) -> None:
    *_, last = call(prompt=text, stream=True)

    assert (last.status_code, last.code) == (502, "InternalError")
    assert "engine" in last.message
    assert server.count("tunegate_answer_errors_total", reason="engine") == 1


def test_the_asynchronous_client_streams_too(server: Server) -> None:
    async def ask() -> list[Any]:
        stream = await AioGeneration.call(model=MODEL, prompt="hi", stream=True)
        try:
            return [event async for event in stream]
        finally:
            await close_shared_aio_session()

    events = asyncio.run(ask())
    assert [event.status_code for event in events] == [200] * len(events)
    assert events[-1].output.text == SAID


def test_a_client_that_goes_ends_the_engines_work(server: Server) -> None:
    stream = call(prompt="go on", stream=True)
    next(stream)
    stream.close()

    assert server.engine.ended.wait(100)
