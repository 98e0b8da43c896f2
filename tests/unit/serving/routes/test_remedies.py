"""What requests are refused for, they are answered for once they are sent as the message says: over HTTP."""

from __future__ import annotations

import ast
import http.client
import json
import re
import shlex
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from docs.generate import SOURCES, VALUE, text_of
from tests.refusals import call
from tests.unit.serving.releases import ANSWER, opened, write_prompts
from tests.unit.serving.standin import DIGEST, MODEL, Server, StandIn, embedded, now, run_engine
from tunegate.api.codec import to_yaml
from tunegate.api.errors import KnowledgeError, StoreError
from tunegate.api.traffic import CHAT_PATH, COMPLETIONS_PATH, GENERATION_PATH, WHALE_CHAT_PATH
from tunegate.knowledge.index import Found, Index
from tunegate.processes import free_port
from tunegate.serving.auth import Admission, ApiKey, KeyFile, Keys, hash_of
from tunegate.serving.events import ApiError
from tunegate.serving.limits import Embedded
from tunegate.serving.parts import Parts
from tunegate.serving.tokens import Tokens

RETURNS = {"messages": [{"role": "user", "content": "How many days do I have to send something back?"}]}
HI = [{"role": "user", "content": "hi"}]
BODIES: dict[str, dict[str, Any]] = {
    CHAT_PATH: {"model": MODEL, "messages": HI},
    COMPLETIONS_PATH: {"model": MODEL, "prompt": "hi"},
    GENERATION_PATH: {"model": MODEL, "input": {"messages": HI}},
    WHALE_CHAT_PATH: {"model": MODEL, "messages": HI},
}
DEEP = b'{"model": "x", "metadata": ' + b"[" * 5000 + b"]" * 5000 + b"}"
IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
PARTS = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]


def of_schema(schema: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}


# path, what is wrong in a request, the message, and what the request is answered with instead.
Case = tuple[str, dict[str, Any] | bytes, str, list[dict[str, Any]]]
CASES: list[Case] = [
    (CHAT_PATH, b"{", "The body is not JSON: ….", [{}]),
    (CHAT_PATH, b"[]", "The body must be a JSON object.", [{}]),
    (CHAT_PATH, DEEP, "The body is nested too deeply; flatten it.", [{"metadata": {"a": "b"}}]),
    (CHAT_PATH, b"x" * (1 << 21), "The request is larger than … bytes; send less text.", [{}]),
    (CHAT_PATH, {"messages": []}, "… must be a list with at least one message.", [{"messages": HI}]),
    (CHAT_PATH, {"messages": [{"content": "hi"}]}, "…: every message needs a role, such as 'user'.", [{}]),
    (CHAT_PATH, {"stream": "yes"}, "stream must be true or false, not ….", [{"stream": True}, {"stream": False}]),
    (
        CHAT_PATH,
        {"stream": True, "stream_options": 5},
        'stream_options must be an object such as {"include_usage": true}.',
        [{"stream": True, "stream_options": {"include_usage": True}}],
    ),
    (CHAT_PATH, {"user": 5}, "… must be a text that stands for the user.", [{"user": "anna"}]),
    (CHAT_PATH, {"max_tokens": 0}, "max_tokens must be a whole number of at least 1.", [{"max_tokens": 1}]),
    (CHAT_PATH, {"temperature": 3}, "… must be a … from … to ….", [{"temperature": 2}, {"temperature": 0}]),
    (
        CHAT_PATH,
        {"messages": IMAGE},
        "The content of every message must be text; other parts are not served here.",
        [{"messages": PARTS}],
    ),
    (
        CHAT_PATH,
        {"messages": [{"role": "user", "content": "hi " * 1000}]},
        "The conversation (about … tokens) and max_tokens must fit … tokens; shorten it.",
        [{"messages": [{"role": "user", "content": "hi " * 100}]}],
    ),
    (
        CHAT_PATH,
        {"stop": [""]},
        "stop must be a text of 1 to 256 characters, or a list of such texts.",
        [{"stop": "x"}, {"stop": ["x" * 256, "y"]}],
    ),
    (CHAT_PATH, {"stop": ["x"] * 17}, "stop may have at most 16 texts.", [{"stop": ["x"] * 16}]),
    (
        CHAT_PATH,
        {"response_format": {"type": "xml"}},
        'response_format must be {"type": "json_object"}, or "json_schema" with a json_schema.schema.',
        [{"response_format": {"type": "json_object"}}, of_schema({"type": "object"})],
    ),
    (
        CHAT_PATH,
        of_schema({"properties": {"a": {"pattern": "a+"}}}),
        "The engine of this server checks no patterns; take them out of the schema.",
        [of_schema({"properties": {"a": {}}})],
    ),
    (
        CHAT_PATH,
        of_schema({"type": "thing"}),
        "response_format: this schema can't be used: …",
        [of_schema({"type": "object"})],
    ),
    (COMPLETIONS_PATH, {"prompt": ""}, "prompt must be a text with at least one character.", [{"prompt": "h"}]),
    (
        COMPLETIONS_PATH,
        {"prompt": ["a", "b"]},
        "prompt must be one text; token ids and several texts are not served here.",
        [{"prompt": "a"}],
    ),
    (
        COMPLETIONS_PATH,
        {"prompt": [[True]]},
        "prompt holds what is neither text nor a token id; send a text.",
        [{"prompt": "a"}],
    ),
    (
        COMPLETIONS_PATH,
        {"response_format": {"type": "json_object"}},
        "… goes with messages, not with a prompt; leave it out.",
        [{}],
    ),
    (
        GENERATION_PATH,
        {"input": {"prompt": "hi", "history": [{"user": "a", "bot": "b"}]}, "parameters": {"use_raw_prompt": True}},
        "input.history goes with a chat; with use_raw_prompt, write it into prompt.",
        [{"input": {"prompt": "a b hi"}, "parameters": {"use_raw_prompt": True}}],
    ),
    (
        GENERATION_PATH,
        {"input": {"prompt": "hi", "messages": HI}},
        "input has both messages and prompt; give one of them.",
        [{"input": {"prompt": "hi"}}, {"input": {"messages": HI}}],
    ),
    (
        GENERATION_PATH,
        {"input": {"messages": HI, "history": [{"user": "a", "bot": "b"}]}},
        "input.history goes with prompt; add its turns to messages.",
        [{"input": {"messages": [*HI, {"role": "assistant", "content": "b"}, *HI]}}],
    ),
    (
        GENERATION_PATH,
        {"input": {}},
        "input is empty; give messages or a prompt.",
        [{"input": {"prompt": "hi"}}, {"input": {"messages": HI}}],
    ),
    (
        GENERATION_PATH,
        {"parameters": {"n": 2}},
        "parameters.n: one answer is given to a request here; ask again for another.",
        [{}, {}],
    ),
    (
        GENERATION_PATH,
        {"parameters": {"enable_search": True}},
        "parameters.enable_search: the version served has no search; leave it out.",
        [{}],
    ),
    (GENERATION_PATH, {"parameters": {"color": 1}}, "Not known here, leave it out: ….", [{}]),
    (GENERATION_PATH, {"parameters": {"top_p": 2}}, "…: ….", [{"parameters": {"top_p": 1}}]),
    (
        WHALE_CHAT_PATH,
        {"generate_config": []},
        "generate_config must be an object.",
        [{"generate_config": {"max_new_tokens": 5}}],
    ),
    (WHALE_CHAT_PATH, {"generate_config": {"color": 1}}, "Not known here, leave it out: ….", [{}]),
    (
        WHALE_CHAT_PATH,
        {"max_tokens": 5, "generate_config": {"max_new_tokens": 5}},
        "… stands in the request and in generate_config; give it once.",
        [{"max_tokens": 5}, {"generate_config": {"max_new_tokens": 5}}],
    ),
    (
        WHALE_CHAT_PATH,
        {"generate_config": {"do_sample": "no"}},
        "generate_config.do_sample must be true or false.",
        [{"generate_config": {"do_sample": value}} for value in (True, False)],
    ),
]


@pytest.fixture
def limits() -> Embedded | None:
    """The embedded engine's: it refuses most."""
    return embedded()


def send(server: Server, method: str, path: str, body: bytes = b"", key: str | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=100)
    connection.request(method, path, body, {"Authorization": f"Bearer {key}"} if key else {})
    response = connection.getresponse()
    said = response.status, response.read().decode()
    connection.close()
    return said


def refusal(said: tuple[int, str]) -> str:
    """The message of an error."""
    status, body = said
    assert status >= 400
    read = json.loads(body)
    return str(read["message"] if "message" in read else read["error"]["message"])


def ask(server: Server, fields: dict[str, Any] | bytes = {}, path: str = CHAT_PATH) -> tuple[int, str]:  # noqa: B006
    """Ask with some fields instead of what is right, or with other bytes."""
    body = fields if isinstance(fields, bytes) else json.dumps({**BODIES[path], **fields}).encode()
    if "response_format" in str(fields):
        server.engine.says = ['{"price": 20}']
    return send(server, "POST", path, body)


def is_said(text: str, message: str) -> bool:
    return re.fullmatch(".+?".join(map(re.escape, text.split(VALUE))), message, re.DOTALL) is not None


@pytest.mark.parametrize(("path", "wrong", "text", "right"), CASES, ids=lambda value: str(value)[:40])
def test_a_request_is_answered_as_the_message_says(
    server: Server, path: str, wrong: dict[str, Any] | bytes, text: str, right: list[dict[str, Any]]
) -> None:
    message = refusal(ask(server, wrong, path))
    assert is_said(text, message), message
    for fields in right:
        status, body = ask(server, fields, path)
        assert status == 200, body


@pytest.mark.parametrize("limits", [None])
@pytest.mark.parametrize(
    ("path", "wrong", "text", "right"),
    [
        (COMPLETIONS_PATH, {"prompt": [5, 100]}, "prompt: … is no token of this model, which….", {"prompt": [5, 99]}),
        (
            GENERATION_PATH,
            {"parameters": {"logprobs": True}},
            "… is served at /v1/chat/completions alone; leave it out here.",
            {},
        ),
    ],
)
def test_an_engine_of_its_own_mind_answers_as_the_message_says(
    server: Server, path: str, wrong: dict[str, Any], text: str, right: dict[str, Any]
) -> None:
    message = refusal(ask(server, wrong, path))
    assert is_said(text, message), message
    assert ask(server, right, path)[0] == 200
    if "/v1/chat/completions" in message:
        assert ask(server, wrong["parameters"])[0] == 200


@pytest.mark.parametrize("field", [{"logit_bias": {"5": 1}}, {"color": "blue"}])
@pytest.mark.parametrize("limits", [embedded(), None], ids=["embedded", "--engine-url"])
def test_a_field_is_left_out_or_goes_to_an_engine_that_can(
    server: Server, limits: Embedded | None, field: dict[str, Any]
) -> None:
    if limits is None:
        assert ask(server, field)[0] == 200
        return
    message = refusal(ask(server, field))
    assert message.endswith("; leave it out, or serve the version with --engine-url on an engine that can.")
    assert ask(server)[0] == 200


class TestOfARelease:
    """One with prompts and knowledge."""

    @pytest.fixture
    def parts(self, shop_index: Path, tmp_path: Path) -> Parts:
        looping = ANSWER.replace(
            "{{ question | fence }}", "{% for c in question %}{% for d in question %}{{ c }}{% endfor %}{% endfor %}"
        )
        return opened(write_prompts(tmp_path / "prompts", answer_en=ANSWER, answer_zh=looping), shop_index)

    @pytest.mark.parametrize("limits", [None])
    def test_a_question_is_asked_once_and_by_the_user(self, server: Server) -> None:
        once = "…: the version served answers from its own prompts, once to a request; leave it out."
        nobodys = {"messages": [{"role": "assistant", "content": "Yes?"}]}

        assert is_said(once, refusal(ask(server, {"n": 2, **RETURNS})))
        assert refusal(ask(server, nobodys)) == "messages: none of them is the user's; add one with the role 'user'."
        assert ask(server, RETURNS)[0] == 200

    def test_knowledge_that_is_away_is_asked_again(self, server: Server, parts: Parts) -> None:
        assert isinstance(parts.index, Index)
        search = parts.index.search
        parts.index.__dict__["search"] = away
        away_now = ask(server, RETURNS)
        del parts.index.__dict__["search"]

        assert refusal(away_now) == "The knowledge of this version can't be searched now; ask again in a moment."
        assert away_now[0] == 503
        assert search("?") == parts.index.search("?")
        assert ask(server, RETURNS)[0] == 200

    def test_a_prompt_that_loops_ends_with_a_word_in_the_log(
        self, server: Server, caplog: pytest.LogCaptureFixture
    ) -> None:
        long = {"messages": [{"role": "user", "content": "怎么退货？" * 300}]}
        said = ask(server, long)

        assert refusal(said) == "The prompt of this version can't be made for this question; the server's log says why."
        assert said[0] == 500
        (reason,) = [vars(line)["reason"] for line in caplog.records if line.message == "prompt failed"]
        assert "answer-zh.prompt:" in reason
        assert "it loops too long" in reason
        assert ask(server, {"messages": [{"role": "user", "content": "怎么退货？"}]})[0] == 200


class TestOfAnAgent:
    """A release with tools."""

    @pytest.fixture
    def limits(self) -> None:
        return None

    @pytest.fixture
    def parts(self) -> Parts:
        return opened(tools=("calculator",))

    def test_it_asks_its_own_tools_and_answers_the_user(self, server: Server) -> None:
        own = "…: the version served asks tools of its own on the way to an answer; leave it out."
        tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
        ended = {"messages": [*HI, {"role": "assistant", "content": "Yes, "}]}
        server.engine.says = ["Final Result: Hi."]

        assert is_said(own, refusal(ask(server, {"tools": tools})))
        assert refusal(ask(server, ended)) == "messages: the last one must be the user's; an agent answers it."
        assert ask(server)[0] == 200


def away(question: str, most: int) -> Found:
    raise KnowledgeError("Nothing answers; start the embedder.")


def test_the_model_is_named_as_the_server_lists_it(server: Server) -> None:
    for path, text in (
        (CHAT_PATH, "model is missing; GET /v1/models names the one that is served here."),
        (GENERATION_PATH, "model is missing; GET /v1/models names the one served."),
    ):
        message = refusal(ask(server, {"model": None}, path))
        assert is_said(text, message), message
        method, listing = message.split("; ")[1].split()[:2]
        (listed,) = json.loads(send(server, method, listing)[1])["data"]
        assert ask(server, {"model": listed["id"]}, path)[0] == 200
    for said in (ask(server, {"model": "gpt-9"}), send(server, "GET", "/v1/models/gpt-9")):
        message = refusal(said)
        assert is_said("The model … does not exist here; the model served is ….", message)
        (name,) = re.findall(r"the model served is '(.+)'\.", message)
        assert ask(server, {"model": name})[0] == 200
        assert send(server, "GET", f"/v1/models/{name}")[0] == 200


def test_a_path_that_is_served_is_named(server: Server) -> None:
    message = refusal(send(server, "POST", "/v1/responses", b"{}"))
    offered = [word.split(" ") for word in message.rstrip(".").partition("; there is ")[2].split(", ")]
    assert ["POST", CHAT_PATH] in offered
    assert all(send(server, method, path, b"{}")[0] not in (404, 405) for method, path in offered if "NAME" not in path)
    (method,) = re.findall(r"is not allowed; use (\w+)\.", refusal(send(server, "GET", CHAT_PATH)))
    assert send(server, method, CHAT_PATH, json.dumps(BODIES[CHAT_PATH]).encode())[0] == 200


def test_token_ids_are_those_that_the_message_names(server: Server) -> None:
    message = refusal(ask(server, {"generate_config": {"eos_token_id": 5}}, WHALE_CHAT_PATH))
    (right,) = re.findall(r"this model has eos_token_id (\d+) or \d+; send these or leave them out\.", message)
    for config in ({"eos_token_id": int(right)}, {}):
        assert ask(server, {"generate_config": config}, WHALE_CHAT_PATH)[0] == 200
    with pytest.raises(ApiError) as caught:
        Tokens().check_special({"eos_token_id": 2}, {})
    assert caught.value.message.endswith(" are its engine's alone; leave them out.")
    Tokens().check_special({}, {})


class Unwell(StandIn):
    """It takes so many requests badly, each as `ills` says."""

    ills: tuple[str, ...] = ()

    async def chat(self, request: web.Request) -> web.StreamResponse:
        if self.ills:
            ill, *rest = self.ills
            self.ills = tuple(rest)
            if ill == "break off":
                assert request.transport is not None
                request.transport.abort()
            return web.Response(status=503 if ill == "full" else 500)
        return await super().chat(request)


@pytest.fixture
def unwell() -> Unwell:
    """Not running yet; the server is told where it will be."""
    return Unwell(url=f"http://127.0.0.1:{free_port()}")


@pytest.mark.parametrize("engine", ["unwell"], indirect=True)
def test_asking_again_is_answered_once_the_engine_is_well(server: Server, unwell: Unwell) -> None:
    server.state.ready = False
    assert refusal(ask(server)) == "The model is not ready; ask again in a moment."
    server.state.ready = True
    assert refusal(ask(server)) == "The engine is down; ask again in a moment."
    with run_engine(unwell):
        assert ask(server)[0] == 200
        for ill, message in (
            ("full", "The engine takes no requests now; ask again in a moment."),
            ("fail", "The engine failed; ask again."),
            ("break off", "The engine broke off; ask again."),
        ):
            unwell.ills = (ill,)
            assert refusal(ask(server)) == message
            assert ask(server)[0] == 200


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> Iterator[StandIn]:
    if getattr(request, "param", None) == "unwell":
        yield request.getfixturevalue("unwell")
        return
    with run_engine() as running:
        yield running


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def guarded(tmp_path: Path, clock: Clock) -> Admission:
    """One key is known, which may ask once a minute."""
    path = tmp_path / "keys.yaml"
    path.write_bytes(to_yaml(KeyFile(keys=(ApiKey(name="web", sha256=hash_of("tg-1"), requests_per_minute=1),))))
    return Admission(Keys(path), 9, clock)


@pytest.fixture
def admission(request: pytest.FixtureRequest) -> Admission:
    if getattr(request, "param", None) == "guarded":
        guarded: Admission = request.getfixturevalue("guarded")
        return guarded
    return Admission(None, 1024)


@pytest.mark.parametrize("admission", ["guarded"], indirect=True)
def test_a_key_is_sent_made_and_used_as_the_messages_say(server: Server, clock: Clock, tmp_path: Path) -> None:
    def post(key: str | None) -> tuple[int, str]:
        return send(server, "POST", CHAT_PATH, json.dumps(BODIES[CHAT_PATH]).encode(), key)

    assert refusal(post(None)) == "The API key is missing; send it as the header `Authorization: Bearer KEY`."
    assert post("tg-1")[0] == 200
    message = refusal(post("tg-1"))
    assert is_said("…; ask again in … s.", message)
    clock.seconds += int(re.findall(r"ask again in (\d+) s", message)[0])
    assert post("tg-1")[0] == 200
    assert refusal(post("tg-2")) == "The API key is not known here; ask whoever runs this server for one."
    made = call(*shlex.split("keys create app --keys"), tmp_path / "keys.yaml").strip()
    assert post(made)[0] == 200


def test_feedback_is_sent_as_the_messages_say(server: Server) -> None:
    answer = server.ids.issue(DIGEST, now())

    def judge(**fields: Any) -> tuple[int, str]:
        body = {"response_id": answer, "verdict": "up", **fields}
        return send(server, "POST", "/v1/feedback", json.dumps(body).encode())

    assert is_said("This is not feedback: ….", refusal(judge(rating=6)))
    assert is_said("The body is not JSON: ….", refusal(send(server, "POST", "/v1/feedback", b"{")))
    assert "send the `id` of an answer just as it was given" in refusal(judge(response_id="chatcmpl-1"))
    server.store.failure = StoreError("The store is away.")
    assert refusal(judge(rating=5)) == "The feedback could not be stored and is not counted; send it again."
    server.store.failure = None
    assert judge(rating=5)[0] == 202
    server.state.later = timedelta(hours=1)
    late = refusal(judge(verdict="down"))
    assert is_said("This answer was judged otherwise …, and that verdict stays; send that one to say more.", late)
    assert judge(verdict="up", comment="But it is blue.")[0] == 200


# The story of the first is beside those of the server itself; the others name no way out.
ELSEWHERE = "… It was asked for twice; ask again, or simplify the schema."
WITHOUT = ("The engine refused the request: …", "The server failed.")


def texts() -> set[str]:
    """What requests are told, with VALUE for what varies; without those that are put together elsewhere."""
    found = set()
    for tree in (ast.parse(path.read_text()) for path in (SOURCES / "serving").rglob("*.py")):
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
            for raised in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
                name = getattr(raised.func, "id", "")
                if name in ("ApiError", "bad_request"):
                    found.add(text_of(raised.args[1 if name == "ApiError" else 0], function, tree))
    return found - {VALUE}


def test_every_message_has_its_story() -> None:
    constants = (
        node.value for node in ast.walk(ast.parse(Path(__file__).read_text())) if isinstance(node, ast.Constant)
    )
    assert texts() - set(constants) == set()
    assert {text for _, _, text, _ in CASES} | {ELSEWHERE, *WITHOUT} <= texts()
