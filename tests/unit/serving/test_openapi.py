"""The server's description of itself: it names all routes, and what it allows never ends in a server error."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from starlette.responses import Response
from starlette.routing import Route

from tests.unit.serving.standin import DIGEST, MODEL, VERSION, Server, embedded
from tunegate.api.traffic import OPENAI_PREFIX
from tunegate.serving.app import front
from tunegate.serving.limits import Embedded
from tunegate.serving.openapi import document
from tunegate.serving.pipeline import Rules
from tunegate.serving.routes.chat import Chat
from tunegate.serving.routes.models import Models

NOWHERE: Any = SimpleNamespace()
# Of KServe's metadata and the playground's files nobody makes requests by hand.
UNTOLD = ("/v2", "/playground")


@pytest.fixture
def limits() -> Embedded:
    return embedded()


def test_every_route_is_described_and_nothing_else() -> None:
    chat = Chat(DIGEST, Rules(MODEL, "x"), "", NOWHERE, NOWHERE, NOWHERE, NOWHERE, NOWHERE)
    routes = front(chat, Models(MODEL, VERSION, lambda: True), NOWHERE, Response("kserve")).routes
    served = {
        (route.path.replace(":path", ""), method.lower())
        for route in routes
        if isinstance(route, Route) and not route.path.startswith((OPENAI_PREFIX, *UNTOLD))
        for method in (route.methods or set()) - {"HEAD"}
    }
    described = {(path, method) for path, operations in document(MODEL)["paths"].items() for method in operations}

    assert served - described == {("/", "get"), ("/openapi.json", "get")}
    assert {each for each in described if not each[0].startswith("/v2/")} <= served


@pytest.mark.parametrize("is_allowed", [True, False], ids=["allowed", "not allowed"])
def test_no_request_ends_in_a_server_error(server: Server, is_allowed: bool) -> None:
    import schemathesis  # seconds, which each worker would take to collect this file

    for result in schemathesis.openapi.from_dict(document(MODEL)).get_all_operations():
        operation = result.ok()
        asks_nothing = not is_allowed and not operation.body
        if asks_nothing or operation.path.startswith(("/v2/", "/metrics")):  # those are KServe's
            continue
        found = ask_at_random(operation, server, is_allowed)
        assert found
        assert 200 in found or not is_allowed or "completions" not in operation.path


def ask_at_random(operation: Any, server: Server, is_allowed: bool) -> set[int]:
    """The statuses of what `operation` allows, or does not."""
    from hypothesis import HealthCheck, Phase, given, settings
    from schemathesis import GenerationMode

    mode = GenerationMode.POSITIVE if is_allowed else GenerationMode.NEGATIVE
    found = set()

    @settings(
        max_examples=20, derandomize=True, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        response = case.call(base_url=server.url, timeout=100)
        found.add(response.status_code)
        is_no_json = "It was asked for twice" in response.text  # the stand-in never says any
        assert response.status_code < 500 or is_no_json, (case.method, case.path, case.body, response.text)

    ask()
    return found


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/feedback"])
@pytest.mark.parametrize(
    "body",
    [b"[" * 100_000, b'{"messages":' * 20_000, b'{"model": "\xff"}', b'{"model": 1e999}', b"\x00", b"x" * 10_000_000],
    ids=["nested lists", "nested objects", "no UTF-8", "infinity", "a zero byte", "10 MB"],
)
def test_malformed_bodies_are_refused_with_a_reason(server: Server, path: str, body: bytes) -> None:
    response = httpx2.post(server.url + path, content=body, timeout=100)

    assert response.status_code in (400, 413, 422)
    assert response.json()["error"]["message"]
    assert httpx2.get(f"{server.url}/v1/models").status_code == 200


def test_the_document_is_served(server: Server) -> None:
    response = httpx2.get(f"{server.url}/openapi.json")

    assert response.headers["content-type"] == "application/json"
    assert response.json() == json.loads(json.dumps(document(MODEL)))
