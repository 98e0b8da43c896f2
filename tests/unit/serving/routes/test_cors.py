"""Pages of other origins: those that the operator names may ask, with keys and limits as for everybody else."""

from __future__ import annotations

import http.client
import json
from pathlib import Path

import pytest

from tests.unit.serving.standin import DIGEST, MODEL, Server
from tunegate.api.codec import to_yaml
from tunegate.serving.auth import Admission, ApiKey, KeyFile, Keys, hash_of

OURS, OTHER, KEY = "https://shop.example", "https://else.example", "tg-of-the-page"


@pytest.fixture
def origins() -> tuple[str, ...]:
    return (OURS,)


@pytest.fixture
def admission(tmp_path: Path) -> Admission:
    path = tmp_path / "keys.yaml"
    path.write_bytes(to_yaml(KeyFile(keys=(ApiKey(name="page", sha256=hash_of(KEY)),))))
    return Admission(Keys(path), 9)


def send(server: Server, method: str, origin: str, body: str | None = None, **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=100)
    connection.request(method, "/v1/chat/completions", body, {"Origin": origin, **headers})
    response = connection.getresponse()
    response.read()
    connection.close()
    return response


BODY = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "hi"}]})
BEFORE = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang",
}


@pytest.mark.parametrize("origin", [OURS, OTHER])
def test_a_browser_is_told_before_it_sends_anything_and_needs_no_key_for_it(server: Server, origin: str) -> None:
    response = send(server, "OPTIONS", origin, **BEFORE)

    assert response.status == (200 if origin == OURS else 400)
    assert response.headers.get("access-control-allow-origin") == (origin if origin == OURS else None)
    assert "authorization" in response.headers.get("access-control-allow-headers", "")


def test_a_page_reads_the_answer_its_id_and_its_version(server: Server) -> None:
    response = send(server, "POST", OURS, BODY, Authorization=f"Bearer {KEY}")

    assert (response.status, response.headers["access-control-allow-origin"]) == (200, OURS)
    assert response.headers["x-tunegate-version"] == DIGEST
    assert {"x-request-id", "x-tunegate-version"} <= set(
        response.headers["access-control-expose-headers"].replace(" ", "").split(",")
    )


def test_a_page_reads_why_it_is_refused(server: Server) -> None:
    response = send(server, "POST", OURS, BODY)

    assert (response.status, response.headers["access-control-allow-origin"]) == (401, OURS)


def test_pages_of_others_may_not_read_anything(server: Server) -> None:
    response = send(server, "POST", OTHER, BODY, Authorization=f"Bearer {KEY}")

    assert "access-control-allow-origin" not in response.headers


class TestUnlessItIsSwitchedOn:
    @pytest.fixture
    def origins(self) -> tuple[str, ...]:
        return ()

    def test_no_page_may(self, server: Server) -> None:
        asked = send(server, "OPTIONS", OURS, Authorization=KEY, **BEFORE)

        assert (asked.status, asked.headers.get("access-control-allow-origin")) == (405, None)
