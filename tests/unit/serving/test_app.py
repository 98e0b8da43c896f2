"""What can be reached of KServe's real application behind our routes."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from kserve import model_server
from starlette.routing import Route
from starlette.testclient import TestClient

from tests.unit.serving.standin import MODEL, VERSION
from tunegate import logs
from tunegate.api.traffic import ANSWER_PATHS, CHAT_PATH
from tunegate.serving.app import front
from tunegate.serving.model_server import Served, kserve_app
from tunegate.serving.routes.chat import Chat
from tunegate.serving.routes.models import Models

pytestmark = pytest.mark.filterwarnings("ignore:ORJSONResponse is deprecated")  # KServe's
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
READ = {
    "/",
    "/metrics",
    "/openapi.json",  # ours; KServe has one of its own
    "/v1/models",
    "/v1/models/{model_name}",
    "/v2",
    "/v2/health/live",
    "/v2/health/ready",
    "/v2/models",
    "/v2/models/{model_name}",
    "/v2/models/{model_name}/ready",
}
UNREACHED: Any = SimpleNamespace()
CHAT = Chat(MODEL, *[UNREACHED] * 7)


@pytest.fixture(scope="module")
def application() -> tuple[Served, Any]:
    served = Served(MODEL)
    served.ready = True
    return served, kserve_app(served)


@pytest.fixture
def client(application: tuple[Served, Any]) -> Iterator[TestClient]:
    served, behind = application
    app = front(CHAT, Models(MODEL, VERSION, lambda: served.ready), UNREACHED, behind)
    yield TestClient(app, raise_server_exceptions=False)
    served.ready = True


def test_weights_share_every_path_that_answers(client: TestClient) -> None:
    router: Any = client.app
    posted = {route.path for route in router.routes if "POST" in route.methods}
    assert CHAT_PATH in posted
    assert {path for path in posted if not path.endswith("/v1/feedback")} <= set(ANSWER_PATHS)


def paths(routes: Any) -> Iterator[str]:
    """Every path that KServe's application serves, however its routers are nested."""
    for route in routes:
        if isinstance(route, Route):
            yield route.path
        else:
            yield from (context.path for context in route.effective_route_contexts())


def test_only_health_metadata_and_metrics_of_kserve_are_reachable(client: TestClient) -> None:
    served = set(paths(model_server.app.routes))
    assert served > READ
    assert any("unload" in path for path in served)

    reached = set()
    for path in sorted(served):
        url = path.replace("{model_name}", MODEL).replace("{model_version}", "1")
        for method in METHODS:
            response = client.request(method, url, json={})
            if response.status_code not in (404, 405):
                assert (method, response.status_code) in {("GET", 200), ("HEAD", 200)}, url
                reached.add(path)

    assert reached == READ
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert MODEL in client.get("/v2/models").json()["models"]


NO_MORE_THAN_NEEDED = """
import sys
from tunegate.serving.model_server import Served, kserve_app
import tunegate.serving.app
kserve_app(Served("shop"))
heavy = {"bm25s", "kserve", "kubernetes", "pandas", "requests", "scipy", "torch", "transformers"} & set(sys.modules)
import kserve
sys.exit(f"{heavy or ''}{'' if issubclass(Served, kserve.Model) else 'another kserve'}")
"""


def test_a_server_imports_nothing_heavy_that_it_may_not_need_and_leaves_kserve_whole() -> None:
    done = subprocess.run([sys.executable, "-c", NO_MORE_THAN_NEEDED], check=False, capture_output=True, text=True)
    assert done.stderr.strip() == ""


def test_a_second_server_in_a_process_does_not_answer_for_the_first() -> None:
    with TestClient(kserve_app(Served("before"))) as before:
        assert before.get("/v2/models/before/ready").status_code == 503
    with TestClient(kserve_app(Served("after"))) as after:
        assert after.get("/v2/models/after/ready").status_code == 503
        assert after.get("/v2/models/before/ready").status_code == 404


def test_readiness_follows_the_model(client: TestClient, application: tuple[Served, Any]) -> None:
    application[0].ready = False

    assert client.get("/v2/health/live").status_code == 200
    for path in ("/v2/health/ready", f"/v2/models/{MODEL}/ready", f"/v1/models/{MODEL}"):
        assert client.get(path).status_code == 503


def test_kserves_metadata_name_the_version_by_its_digest(client: TestClient) -> None:
    metadata = client.get(f"/v2/models/{MODEL}").json()

    assert (metadata["name"], metadata["versions"], metadata["platform"]) == (MODEL, [VERSION.digest], "huggingface")
    missing = client.get("/v2/models/other")
    assert (missing.status_code, list(missing.json())) == (404, ["error"])
    assert "parameters" not in metadata


def test_kserves_metadata_name_the_parts_of_a_release(application: tuple[Served, Any]) -> None:
    parts = {"prompts": "sha256:" + "1" * 64, "knowledge": "sha256:" + "2" * 64, "tools": ["calculator"]}
    models = Models(MODEL, VERSION, lambda: True, parts)
    client = TestClient(front(CHAT, models, UNREACHED, application[1]))

    assert client.get(f"/v2/models/{MODEL}").json()["parameters"] == parts
    assert client.get("/v1/models").json()["data"][0]["release"] == parts


def test_metrics_are_those_of_the_process(client: TestClient) -> None:
    assert "python_info" in client.get("/metrics").text


@pytest.mark.parametrize(
    ("method", "path", "status", "said"),
    [
        ("POST", "/v1/embeddings", 404, "/v1/chat/completions"),
        ("POST", "/v1/responses", 404, "/v1/chat/completions"),
        ("GET", "/v1/models/a%2Fb", 404, MODEL),
        ("GET", "/v1/models/a/b", 404, MODEL),
        ("GET", "/docs", 404, "POST /v1/feedback"),
        ("POST", "/openapi.json", 405, "GET"),
        ("GET", "/v1/chat/completions", 405, "POST"),
        ("DELETE", "/openai/v1/feedback", 405, "POST"),
        ("POST", f"/v1/models/{MODEL}:predict", 405, "GET"),
    ],
)
def test_what_is_not_served_is_said_in_openais_form(
    client: TestClient, method: str, path: str, status: int, said: str
) -> None:
    response = client.request(method, path)

    assert response.status_code == status
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert said in error["message"]
    assert (response.headers.get("allow") is not None) is (status == 405)


def test_each_protocol_has_its_own_form_of_errors(client: TestClient) -> None:
    unload = client.post(f"/v2/repository/models/{MODEL}/unload")
    assert (unload.status_code, list(unload.json())) == (404, ["error"])
    assert "there is" in unload.json()["error"]
    assert "GET" in client.post("/v2/health/ready").json()["error"]

    dashscope = client.post("/api/v1/services/aigc/multimodal-generation/generation")
    assert dashscope.status_code == 404
    assert dashscope.json() == {
        "code": "InvalidURL",
        "message": dashscope.json()["message"],
        "request_id": dashscope.headers["x-request-id"],
    }


def test_a_trailing_slash_leads_to_the_route(client: TestClient) -> None:
    response = client.post("/v1/chat/completions/?a=b", follow_redirects=False)

    assert response.status_code == 307
    assert response.headers["location"].endswith("/v1/chat/completions?a=b")


def test_every_line_has_our_form_and_its_fields_beside_kserves_server(
    application: tuple[Served, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    root = logging.getLogger()
    before = root.level, list(root.handlers)
    try:
        logs.configure()
        model_server.ModelServer(enable_grpc=False)  # would configure logging anew if `application` had let it
        logging.getLogger("tunegate.serving.routes.chat").error("answer failed", extra={"kind": "KeyError"})
        logging.getLogger("tunegate.serving.app").info("engine became warm", extra={"model": MODEL})
        logging.getLogger("kserve").warning("from kserve")
        logging.getLogger("kserve.trace").info("for each probe")
        logging.getLogger("uvicorn.error").warning("from uvicorn")
    finally:
        root.setLevel(before[0])
        root.handlers = before[1]
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]

    assert [line["message"] for line in lines] == ["answer failed", "engine became warm", "from kserve", "from uvicorn"]
    assert (lines[0]["kind"], lines[1]["model"]) == ("KeyError", MODEL)
