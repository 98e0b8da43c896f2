from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.unit.serving.standin import DIGEST, MODEL, Server

ASK: list[Any] = [{"role": "user", "content": "What color is it?"}]


def say(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


@pytest.fixture(params=["/v1", "/openai/v1"])
def client(server: Server, request: pytest.FixtureRequest) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.url + request.param, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def v1(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as client:
        yield client


def post(server: Server, body: bytes) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=100)
    connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
    return connection, connection.getresponse()


def ask_raw(server: Server, **fields: Any) -> tuple[http.client.HTTPResponse, bytes]:
    body = {"model": MODEL, "messages": ASK, **fields}
    connection, response = post(server, json.dumps(body).encode())
    content = response.read()
    connection.close()
    return response, content


def test_the_openai_client_gets_an_answer_with_a_signed_id(client: openai.OpenAI, server: Server) -> None:
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=ASK)
    answer = raw.parse()

    assert answer.choices[0].message.content == "Blue."
    assert answer.model == MODEL
    assert answer.usage is not None
    assert server.ids.read(answer.id).digest == DIGEST
    assert raw.headers["x-tunegate-version"] == DIGEST
    assert server.count("tunegate_answers_total") == 1


@pytest.mark.parametrize("own_ids", [False, True], ids=["our id taken", "an id of its own"])
def test_every_chunk_of_a_stream_carries_one_signed_id(client: openai.OpenAI, server: Server, own_ids: bool) -> None:
    server.engine.own_ids = own_ids
    chunks = list(client.chat.completions.create(model=MODEL, messages=ASK, stream=True))

    assert len({chunk.id for chunk in chunks}) == 1
    assert server.ids.read(chunks[0].id).digest == DIGEST
    assert {chunk.model for chunk in chunks} == {MODEL}
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == 'a "model":"/models/x@main" 夏'
    assert server.count("tunegate_answers_total") == 1
    assert server.count("tunegate_time_to_first_token_seconds_count") == 1


@pytest.mark.parametrize("own_ids", [False, True])
def test_a_stream_ends_with_one_done(server: Server, own_ids: bool) -> None:
    server.engine.own_ids = own_ids
    connection, response = post(server, json.dumps({"model": MODEL, "messages": ASK, "stream": True}).encode())
    body = response.read()
    connection.close()

    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-tunegate-version"] == DIGEST
    assert body.endswith(b"\n\ndata: [DONE]\n\n")
    assert body.count(b"[DONE]") == 1


def test_text_comes_before_the_answer_is_complete(v1: openai.OpenAI, server: Server) -> None:
    stream = v1.chat.completions.create(model=MODEL, messages=say("go on"), stream=True)
    first = [next(stream) for _ in range(5)]  # the engine waits for us to let it end
    server.engine.go_on.set()

    assert len(first) == 5
    assert list(stream)[-1].choices[0].finish_reason == "stop"


def test_a_client_that_goes_ends_the_engines_work(v1: openai.OpenAI, server: Server) -> None:
    stream = v1.chat.completions.create(model=MODEL, messages=say("go on"), stream=True)
    next(stream)
    stream.close()

    assert server.engine.ended.wait(100)
    assert server.count("tunegate_answers_total") == 0


def test_another_model_is_not_found_and_the_served_one_is_named(v1: openai.OpenAI, server: Server) -> None:
    with pytest.raises(openai.NotFoundError, match=MODEL) as caught:
        v1.chat.completions.create(model="gpt-9", messages=ASK)

    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert server.count("tunegate_answer_errors_total", reason="request") == 1


def test_the_engine_sees_its_own_name_and_the_releases_defaults(v1: openai.OpenAI, server: Server) -> None:
    v1.chat.completions.create(model=MODEL, messages=ASK)
    (asked,) = server.engine.asked

    assert asked["model"] == server.engine.model
    assert asked["messages"] == [{"role": "system", "content": "Be brief."}, *ASK]
    assert asked["max_tokens"] == 9


def test_a_server_that_is_not_ready_says_so(v1: openai.OpenAI, server: Server) -> None:
    server.state.ready = False
    with pytest.raises(openai.InternalServerError, match="not ready") as caught:
        v1.chat.completions.create(model=MODEL, messages=ASK)

    assert caught.value.status_code == 503
    assert caught.value.response.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    ("text", "status", "stream"),
    [("fail", 502, False), ("fail", 502, True), ("refuse", 400, False), ("refuse", 400, True), ("garbage", 502, False)],
)
def test_what_the_engine_does_wrong_is_told(server: Server, text: str, status: int, stream: bool) -> None:
    response, body = ask_raw(server, messages=say(text), stream=stream)

    assert response.status == status
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}
    assert b"CUDA" not in body


def test_a_stream_that_breaks_off_ends_with_an_error_and_no_done(v1: openai.OpenAI, server: Server) -> None:
    with pytest.raises(openai.APIError, match="broke off"):
        list(v1.chat.completions.create(model=MODEL, messages=say("break off"), stream=True))

    _, body = ask_raw(server, messages=say("break off"), stream=True)
    assert b"[DONE]" not in body
    assert server.count("tunegate_answer_errors_total", reason="engine") == 2
    assert server.count("tunegate_answers_total") == 0


def test_an_error_that_the_engine_reports_within_a_stream_is_counted(v1: openai.OpenAI, server: Server) -> None:
    with pytest.raises(openai.APIError):
        list(v1.chat.completions.create(model=MODEL, messages=say("report"), stream=True))

    assert server.count("tunegate_answer_errors_total", reason="engine") == 1


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'"\xff"', "not JSON"),
        (b"[]", "object"),
        (b"{}", "model"),
        (b'{"model": "shop-assistant"}', "messages"),
        (b'{"model": "shop-assistant", "messages": []}', "messages"),
        (b'{"model": "shop-assistant", "messages": ["hi"]}', "messages"),
        (b'{"model": "shop-assistant", "messages": [{"role": "user"}], "stream": "yes"}', "stream"),
    ],
)
def test_a_malformed_request_is_told_what_is_wrong(server: Server, body: bytes, named: str) -> None:
    connection, response = post(server, body)
    error = json.loads(response.read())["error"]
    connection.close()

    assert response.status == 400
    assert named in error["message"]


def test_a_body_above_the_limit_is_refused(server: Server) -> None:
    response, _ = ask_raw(server, messages=say("x" * (1 << 20)))

    assert response.status == 413


def test_answers_are_given_side_by_side(server: Server, v1: openai.OpenAI) -> None:
    streams = [v1.chat.completions.create(model=MODEL, messages=say("go on"), stream=True) for _ in range(20)]
    for stream in streams:
        next(stream)
    server.engine.go_on.set()
    threads = [threading.Thread(target=list, args=(stream,)) for stream in streams]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)

    assert server.count("tunegate_answers_total") == 20
