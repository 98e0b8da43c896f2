"""What programs send unasked is answered: bodies as their documentation and their own sources have them.

`golden/client-defaults.json` names the program of each; "M" stands for the model. What asks for nothing has no effect.
"""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.serving.standin import MODEL, Server, embedded
from tunegate.serving.features import TRANSFORMERS, TRANSFORMERS_ALONE, VLLM, EngineFeatures
from tunegate.serving.limits import Embedded
from tunegate.serving.pipeline import Rules, prepare
from tunegate.serving.protocols.openai import CHAT

BODIES: dict[str, Any] = json.loads((Path(__file__).parents[1] / "golden" / "client-defaults.json").read_text())
HEADERS = {
    "Accept": "application/json, text/event-stream",
    "Authorization": "Bearer sk-none",
    "OpenAI-Organization": "org-none",
    "OpenAI-Project": "proj-none",
    "X-Stainless-Lang": "js",
    "X-OpenWebUI-User-Name": "Ada",
}


@pytest.fixture
def limits() -> Embedded:
    return embedded()


@pytest.mark.parametrize("program", BODIES)
def test_it_is_answered(server: Server, program: str) -> None:
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=100)
    connection.request("POST", "/v1/chat/completions", json.dumps(BODIES[program] | {"model": MODEL}), HEADERS)
    response = connection.getresponse()
    body = response.read()
    connection.close()

    assert response.status == 200, body
    streams = bool(BODIES[program].get("stream"))
    assert body.endswith(b"data: [DONE]\n\n") if streams else json.loads(body)["choices"][0]["message"]["content"]


@pytest.mark.parametrize(
    ("features", "limits"),
    [(VLLM, None), (TRANSFORMERS, embedded()), (TRANSFORMERS_ALONE, embedded())],
    ids=["vllm", "embedded", "embedded with a prefix"],
)
@pytest.mark.parametrize("program", BODIES)
def test_no_engine_refuses_what_asks_for_nothing(
    program: str, features: EngineFeatures, limits: Embedded | None
) -> None:
    if features is TRANSFORMERS_ALONE and BODIES[program].get("seed") is not None:
        pytest.skip("a seed asks for something, which this engine can't do")
    ask = CHAT.read(json.dumps(BODIES[program] | {"model": MODEL}).encode(), ())
    request = json.loads(prepare(ask, Rules(MODEL, "x", embedded=limits, features=features)).body)

    assert None not in request.values()


def test_models_are_found_as_these_programs_look_for_them(server: Server) -> None:
    for path in ("/v1/models", f"/v1/models/{MODEL}", "/openai/v1/models", "/v1/models/"):
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=100)
        connection.request("GET", path, headers=HEADERS)
        assert connection.getresponse().status == 200, path
        connection.close()
