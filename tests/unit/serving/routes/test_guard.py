"""API keys and limits over HTTP: before a body is read, in the form that clients read."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.unit.serving.standin import MODEL, Server
from tests.waiting import wait_for
from tunegate.api.codec import to_yaml
from tunegate.serving.auth import Admission, ApiKey, KeyFile, Keys, hash_of

Clients = Callable[[str], openai.OpenAI]
KEY, BUSY = "tg-of-the-web-shop", "tg-of-the-busy-app"
ASK: list[Any] = [{"role": "user", "content": "What color is it?"}]
GO_ON: list[Any] = [{"role": "user", "content": "go on"}]


@pytest.fixture
def admission(tmp_path: Path) -> Admission:
    path = tmp_path / "keys.yaml"
    keys = ApiKey(name="web", sha256=hash_of(KEY)), ApiKey(name="busy", sha256=hash_of(BUSY), concurrent=1)
    path.write_bytes(to_yaml(KeyFile(keys=keys)))
    return Admission(Keys(path), 2)


@pytest.fixture
def client(server: Server) -> Iterator[Clients]:
    """Makes a client with a key."""
    with ExitStack() as opened:
        url = server.url + "/v1"
        yield lambda key: opened.enter_context(openai.OpenAI(base_url=url, api_key=key, max_retries=0))


def request(server: Server, method: str, path: str, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=100)
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, body


def test_a_known_key_is_answered_and_counted_by_its_name(client: Clients, server: Server) -> None:
    answer = client(KEY).chat.completions.create(model=MODEL, messages=ASK)

    assert answer.choices[0].message.content == "Blue."
    assert request(server, "GET", "/v1/models", Authorization=KEY)[0] == 200  # as EAS's clients send it
    assert server.count("tunegate_requests_admitted_total", key="web") == 1


@pytest.mark.parametrize("key", ["tg-unknown", "Bearer", "none"])
def test_another_key_is_refused_in_openais_form(client: Clients, server: Server, key: str) -> None:
    with pytest.raises(openai.AuthenticationError, match="not known") as caught:
        client(key).chat.completions.create(model=MODEL, messages=ASK)

    assert caught.value.code == "invalid_api_key"
    assert not server.engine.asked
    assert server.count("tunegate_requests_refused_total", key="", reason="key") == 1


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/chat/completions", 401),
        ("POST", "/openai/v1/feedback", 401),
        ("GET", "/v1/models", 401),
        ("GET", "/anything", 401),
        ("POST", "/v2/health/ready", 401),
        ("GET", "/v2/health/ready", 200),
        ("GET", "/metrics", 404),  # what is behind is not KServe here; it was asked
        ("GET", "/", 404),
    ],
)
def test_probes_and_metrics_need_no_key(server: Server, method: str, path: str, status: int) -> None:
    found, body = request(server, method, path)

    assert found == status
    assert (b"API key is missing" in body) is (status == 401)


def test_a_key_that_is_busy_is_told_when_to_ask_again(client: Clients, server: Server) -> None:
    stream = client(BUSY).chat.completions.create(model=MODEL, messages=GO_ON, stream=True)
    next(stream)
    with pytest.raises(openai.RateLimitError, match="busy may have 1 requests") as caught:
        client(BUSY).chat.completions.create(model=MODEL, messages=ASK)
    assert caught.value.code == "rate_limit_exceeded"
    assert caught.value.response.headers["retry-after"] == "1"
    assert server.count("tunegate_requests_refused_total", key="busy", reason="concurrent") == 1
    stream.close()

    def is_free() -> bool:
        try:
            return bool(client(BUSY).chat.completions.create(model=MODEL, messages=ASK))
        except openai.RateLimitError:
            return False

    wait_for(is_free, what="the request that was left to be counted out")


def test_a_full_server_refuses_before_it_reads_the_body(client: Clients, server: Server) -> None:
    streams = [client(KEY).chat.completions.create(model=MODEL, messages=GO_ON, stream=True) for _ in range(2)]
    for stream in streams:
        next(stream)
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=100)
    connection.putrequest("POST", "/v1/chat/completions")
    for name, value in (("Authorization", KEY), ("Content-Length", "1000000")):
        connection.putheader(name, value)
    connection.endheaders()  # and no body
    response = connection.getresponse()

    assert response.status == 429
    assert response.headers["retry-after"] == "1"
    assert json.loads(response.read())["error"]["code"] == "rate_limit_exceeded"
    connection.close()
    server.engine.go_on.set()
    assert [list(stream)[-1].choices[0].finish_reason for stream in streams] == ["stop", "stop"]
