"""A client that leaves ends the work of its engine, in every protocol, with a stream and with a whole answer."""

from __future__ import annotations

import http.client
import json
from typing import Any

import pytest

from tests.unit.serving.standin import MODEL, Server, embedded
from tests.waiting import wait_for
from tunegate.api.traffic import ANSWER_PATHS, CHAT_PATH, GENERATION_PATH
from tunegate.serving.limits import Embedded

MESSAGES = [{"role": "user", "content": "go on"}]


@pytest.fixture(params=[None, embedded()], ids=["an engine by URL", "the embedded engine"])
def limits(request: pytest.FixtureRequest) -> Embedded | None:
    limits: Embedded | None = request.param
    return limits


def leave(server: Server, path: str, *, stream: bool, **fields: Any) -> None:
    """Ask, and be gone as soon as the engine works."""
    asked: dict[str, Any] = {"messages": MESSAGES} if "chat" in path else {"prompt": "go on"}
    body = {"model": MODEL, "input": asked} if path == GENERATION_PATH else {"model": MODEL, "stream": stream, **asked}
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=100)
    connection.request("POST", path, json.dumps(body | fields), {"X-DashScope-SSE": "enable" if stream else "disable"})
    wait_for(lambda: server.engine.asked, what="the engine to be asked")
    connection.close()


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("path", ANSWER_PATHS)
def test_the_engine_stops(server: Server, path: str, stream: bool) -> None:
    leave(server, path, stream=stream)

    assert server.engine.ended.wait(100)
    wait_for(lambda: server.count("tunegate_answer_errors_total", reason="disconnect"), what="the leave to be counted")
    assert server.count("tunegate_answers_total") == 0


@pytest.mark.parametrize("limits", [None])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_the_engine_stops_with_all_choices(server: Server, stream: bool) -> None:
    leave(server, CHAT_PATH, stream=stream, n=3)

    assert server.engine.ended.wait(100)


def test_the_engine_is_not_asked_for_json_again(server: Server) -> None:
    leave(server, CHAT_PATH, stream=False, response_format={"type": "json_object"})

    assert server.engine.ended.wait(100)
    wait_for(lambda: server.count("tunegate_answer_errors_total", reason="disconnect"), what="the leave to be counted")
    assert len(server.engine.asked) == 1
