"""What is wrong is said in the form of the protocol that was spoken, and the server goes on."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

import pytest

from tests.unit.serving.standin import MODEL, Server
from tests.waiting import wait_for
from tunegate.api.traffic import ANSWER_PATHS, GENERATION_PATH

MESSAGES = [{"role": "user", "content": "hi"}]


def request_to(path: str, **fields: Any) -> dict[str, Any]:
    if path == GENERATION_PATH:
        return {"model": MODEL, "input": {"messages": MESSAGES}, **fields}
    return {"model": MODEL, **({"messages": MESSAGES} if "chat" in path else {"prompt": "hi"}), **fields}


def post(server: Server, path: str, body: bytes, **headers: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=100)
    connection.request("POST", path, body, headers)
    response = connection.getresponse()
    said = json.loads(response.read())
    assert response.headers["x-request-id"]
    connection.close()
    return response.status, said


def message(path: str, said: Any) -> str:
    """The words of an error, whose form is checked."""
    if path == GENERATION_PATH:
        assert set(said) == {"code", "message", "request_id"}
        return str(said["message"])
    assert set(said) == {"error"}
    assert set(said["error"]) == {"message", "type", "param", "code"}
    return str(said["error"]["message"])


def goes_on(server: Server, path: str) -> bool:
    status, _ = post(server, path, json.dumps(request_to(path)).encode())
    return status == 200


@pytest.mark.parametrize("path", ANSWER_PATHS)
@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "not JSON"),
        (b'{"model": ', 400, "not JSON"),
        (b'{"model": "\xff"}', 400, "not JSON"),
        (b'{"model": "\\ud800"}', 400, "not JSON"),
        (b"[" * 100_000, 400, "nested too deeply"),
        (b'{"a":' * 100_000, 400, "nested too deeply"),
        (b"[]", 400, "object"),
        (b'{"model": 5}', 400, "model is missing"),
        (b"x" * 10_000_000, 413, "send less"),
    ],
    ids=["empty", "cut off", "no text", "half a character", "lists", "objects", "list", "number", "10 MB"],
)
def test_a_body_that_is_no_request(server: Server, path: str, body: bytes, status: int, words: str) -> None:
    found, said = post(server, path, body)

    assert found == status
    assert words in message(path, said)
    assert goes_on(server, path)


@pytest.mark.parametrize("path", ANSWER_PATHS)
@pytest.mark.parametrize("name", ["gpt-9", f"org/{MODEL}", "", "../../etc"])
def test_another_model_is_not_found_and_the_served_one_is_named(server: Server, path: str, name: str) -> None:
    found, said = post(server, path, json.dumps(request_to(path, model=name)).encode())

    if path == GENERATION_PATH and not name:
        assert (found, said["code"]) == (400, "BadRequest.EmptyModel")
    else:
        assert found == 404
        assert MODEL in message(path, said)
        assert (said.get("code") or said["error"]["code"]) in ("ModelNotFound", "model_not_found")


@pytest.mark.parametrize("depth", [200, 490, 980, 1000, 1020, 5000])
@pytest.mark.parametrize("path", ANSWER_PATHS)
def test_however_deep_it_is_never_our_failure(server: Server, path: str, depth: int) -> None:
    body = json.dumps(request_to(path))[:-1] + ', "metadata": ' + "[" * depth + "]" * depth + "}"
    found, said = post(server, path, body.encode())

    assert found in (200, 400)
    if found == 400:
        assert message(path, said)
    assert server.count("tunegate_answer_errors_total", reason="internal") == 0


@pytest.mark.parametrize("path", ANSWER_PATHS)
def test_a_server_that_is_not_ready_says_so(server: Server, path: str) -> None:
    server.state.ready = False
    found, said = post(server, path, json.dumps(request_to(path)).encode())

    assert found == 503
    assert "not ready" in message(path, said)


@pytest.mark.parametrize("path", ANSWER_PATHS)
def test_a_connection_that_drops_within_its_request_is_forgotten(server: Server, path: str) -> None:
    host, _, port = server.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{{".encode())
    wait_for(lambda: server.count("tunegate_answer_errors_total", reason="disconnect"), what="the drop to be counted")

    assert not server.engine.asked
    assert goes_on(server, path)


@pytest.mark.parametrize("path", ANSWER_PATHS)
@pytest.mark.parametrize("how", ["break off", "report"])
def test_an_engine_that_dies_within_a_stream_is_told_of_in_the_last_event(server: Server, path: str, how: str) -> None:
    asked = json.dumps(request_to(path, **({} if path == GENERATION_PATH else {"stream": True}))).replace(
        '"hi"', f'"{how}"'
    )
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=100)
    connection.request("POST", path, asked.encode(), {"X-DashScope-SSE": "enable"})
    response = connection.getresponse()
    body = response.read()
    connection.close()
    last = body.removesuffix(b"\n\n").rpartition(b"\n\n")[2]

    assert (response.status, body.count(b"[DONE]"), b"cache is full" in body) == (200, 0, False)
    assert "engine" in message(path, json.loads(last.partition(b"data:")[2]))
    assert server.count("tunegate_answer_errors_total", reason="engine") == 1
    assert goes_on(server, path)


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
@pytest.mark.parametrize("value", ["true", 1, {}])
def test_whether_to_stream_is_not_guessed(server: Server, path: str, value: Any) -> None:
    found, said = post(server, path, json.dumps(request_to(path, stream=value)).encode())

    assert found == 400
    assert message(path, said) == f"stream must be true or false, not {json.dumps(value)}."


def test_a_key_may_stand_alone_or_after_bearer(server: Server) -> None:
    for header in ("key", "Bearer key"):
        found, _ = post(server, "/v1/chat/completions", json.dumps(request_to("chat")).encode(), Authorization=header)
        assert found == 200


def test_responses_would_bypass_the_release(server: Server) -> None:
    found, said = post(server, "/v1/responses", b'{"model": "x", "input": "hi"}')

    assert found == 404
    assert "POST /v1/chat/completions" in message("", said)
