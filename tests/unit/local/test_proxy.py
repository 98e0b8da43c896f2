"""The proxy as a program of its own, between a real client and real servers on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import socket
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from tests.unit.local.proxied import (
    CHAT,
    DEADLINE_SECONDS,
    Answer,
    Client,
    Start,
    listens,
    refused,
    start_proxy,
)
from tests.waiting import wait_for_async
from tunegate.api.traffic import ANSWER_PATHS, GENERATION_PATH
from tunegate.local.proxy import serve
from tunegate.processes import Child, answers, free_port

pytestmark = pytest.mark.anyio


def streaming(go_on: asyncio.Event) -> Answer:
    """An answer in two chunks, the second when told to."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: one\n\n")
        await go_on.wait()
        await response.write(b"data: two\n\n")
        return response

    return answer


def logged(proxy: Child) -> list[dict[str, object]]:
    """The lines of the proxy's log."""
    return [json.loads(line) for line in proxy.log.read_text().splitlines() if line.endswith("}")]


async def test_every_turn_goes_to_the_version_of_the_conversation(client: Client, start: Start) -> None:
    stable, canary = await start(), await start()
    client.route(stable.weighing(50), canary.weighing(50))

    served: dict[str, set[str]] = {}
    for number in range(20):
        question = f"Do you have shoes of size {number}?"
        for turns in ([question], [question, "Yes.", "In red?"], [question, "Yes.", "In red?", "No.", "Pity."]):
            _, answer = await client.ask(*turns)
            served.setdefault(question, set()).add(answer["version"])

    assert all(len(versions) == 1 for versions in served.values())
    assert set.union(*served.values()) == {stable.digest, canary.digest}


async def test_the_conversation_header_decides_on_both_chat_routes(client: Client, start: Start) -> None:
    stable, canary = await start(), await start()
    client.route(stable.weighing(50), canary.weighing(50))

    def same(number: int) -> dict[str, str]:
        return {"x-conversation-id": "cart-17", "x-turn": str(number)}

    answers_given = [(await client.ask(f"question {number}", **same(number)))[1] for number in range(10)]
    answers_given += [(await client.post(f"/openai{CHAT}", json={}, headers=same(10)))[1]]

    assert len({answer["version"] for answer in answers_given}) == 1


async def test_answers_are_shared_by_weight_and_counted(client: Client, start: Start) -> None:
    stable, canary = await start(), await start()
    client.route(stable.weighing(80), canary.weighing(20))

    results = await asyncio.gather(*(client.ask("Hello", **{"x-conversation-id": str(n)}) for n in range(400)))

    served = Counter(answer["version"] for _, answer in results)
    assert served[canary.digest] == pytest.approx(80, abs=32)  # four standard errors
    assert await client.count("answers") == [served[stable.digest], served[canary.digest]]


async def test_a_growing_canary_keeps_its_conversations(client: Client, start: Start) -> None:
    stable, canary = await start(), await start()
    shown = []
    for weight in (10, 50, 100):
        client.route(stable.weighing(100 - weight), canary.weighing(weight), salt="promotion-1")
        results = {str(n): (await client.ask("Hello", **{"x-conversation-id": str(n)}))[1] for n in range(60)}
        shown.append({name for name, answer in results.items() if answer["version"] == canary.digest})

    assert shown[0] < shown[1] < shown[2]
    assert len(shown[2]) == 60


async def test_the_observed_route_is_the_one_in_use(client: Client, start: Start) -> None:
    stable, canary = await start(), await start()
    client.route(stable.weighing(100))
    await client.ask("Hello")
    client.route(stable.weighing(100), canary.weighing(0), salt="promotion-1")

    observed = await client.observed()
    await client.ask("Hello")

    assert observed["salt"] == "promotion-1"
    assert [(backend["version"], backend["weight"]) for backend in observed["backends"]] == [
        (stable.digest, 100),
        (canary.digest, 0),
    ]
    assert observed["problem"] == ""
    assert await client.count("answers") == [2, 0]
    assert await client.count("answersSinceChange") == [1, 0]


@pytest.mark.parametrize(
    "text", [b"", b"{", b'{"salt": "", "backends": [{"version": "sha256:x", "url": "http://h:1", "weight": 10}]}']
)
async def test_a_route_file_that_is_no_route_changes_nothing(
    client: Client, start: Start, running: tuple[str, Path, Child], text: bytes
) -> None:
    stable = await start()
    client.route(stable.weighing(100))
    await client.ask("Hello")
    client.write(text)

    status, answer = await client.ask("Hello again")
    observed = await client.observed()

    assert (status, answer["version"]) == (200, stable.digest)
    assert "route.json is not a valid Route" in observed["problem"]
    assert [backend["answersSinceChange"] for backend in observed["backends"]] == [2]
    assert observed["problem"] in [line.get("problem") for line in logged(running[2])]

    client.route(stable.weighing(100))
    assert (await client.observed())["problem"] == ""


async def test_a_route_file_that_is_gone_changes_nothing(client: Client, start: Start) -> None:
    stable = await start()
    client.route(stable.weighing(100))
    await client.ask("Hello")
    client.route_file.unlink()

    assert (await client.ask("Hello again"))[0] == 200
    assert "can't be read: No such file" in (await client.observed())["problem"]


async def test_chunks_arrive_as_they_are_made(client: Client, start: Start) -> None:
    go_on = asyncio.Event()
    version = await start(streaming(go_on))
    client.route(version.weighing(100))

    async with client.http.post(client.url + CHAT, json={"stream": True}) as response:
        first = await response.content.readline()
        go_on.set()  # the second chunk is made only now that the first one is here
        rest = await response.content.read()

    assert (first, rest) == (b"data: one\n", b"\ndata: two\n\n")
    assert response.headers["Content-Type"] == "text/event-stream"


async def test_headers_arrive_before_the_first_chunk(client: Client, start: Start) -> None:
    go_on = asyncio.Event()

    async def think(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"x-thinking": "yes"})
        await response.prepare(request)
        await go_on.wait()
        return response

    client.route((await start(think)).weighing(100))

    async with client.http.post(client.url + CHAT, json={}) as response:
        assert response.headers["x-thinking"] == "yes"
        go_on.set()
        assert await response.read() == b""


async def test_a_request_body_is_passed_on_as_it_comes(client: Client, start: Start) -> None:
    arrived = asyncio.Event()

    async def read(request: web.Request) -> web.StreamResponse:
        first = await request.content.readline()
        arrived.set()
        return web.Response(body=first + await request.content.read())

    async def parts() -> AsyncIterator[bytes]:
        yield b"one\n"
        await arrived.wait()
        yield b"two\n"

    client.route((await start(read)).weighing(100))

    async with client.http.post(client.url + "/v1/files", data=parts()) as response:
        assert await response.read() == b"one\ntwo\n"


async def test_a_request_and_its_answer_pass_unchanged(client: Client, start: Start) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.Response(status=418, reason="Teapot", body=b"\x1f\x8bnot really")
        response.headers.update({"Content-Encoding": "gzip", "x-version": "7", "Connection": "x-private"})
        response.headers.extend([("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("x-private", "for the proxy")])
        return response

    version = await start(answer)
    client.route(version.weighing(100))

    sent = {"Authorization": "Bearer key", "x-trace": "1", "Connection": "x-hop", "x-hop": "1", "TE": "trailers"}
    skip = {"Accept", "Accept-Encoding", "User-Agent", "Content-Type"}
    url = client.url + "/v1/files/a%2Fb?name=%C3%A9&x=1+2"
    async with client.http.delete(url, headers=sent, skip_auto_headers=skip) as response:
        body = await response.read()

    asked = version.asked[0]
    assert (asked.method, asked.raw_path) == ("DELETE", "/v1/files/a%2Fb?name=%C3%A9&x=1+2")
    assert dict(asked.headers) == {
        "Host": version.weighing(1).url.removeprefix("http://"),
        "Authorization": "Bearer key",
        "x-trace": "1",
        "Content-Length": "0",  # from the client itself
        "X-Forwarded-For": "127.0.0.1",
    }
    assert (response.status, response.reason, body) == (418, "Teapot", b"\x1f\x8bnot really")
    assert response.headers["Content-Encoding"] == "gzip"
    assert response.headers.getall("Set-Cookie") == ["a=1", "b=2"]
    assert "x-private" not in response.headers


async def test_a_version_is_told_the_step_whatever_the_client_says(client: Client, start: Start) -> None:
    stable, canary = await start(), await start()
    for step in ("shop-run-7/0", ""):
        client.route(stable.weighing(0), canary.weighing(100), step=step)
        await client.ask("Hello", **{"Tunegate-Step": "shop-run-7/9", "TUNEGATE-STEP": "shop-run-7/8"})
        await client.ask("Hello again")
    told = [request.headers.getall("tunegate-step", []) for request in canary.asked]
    assert told == [["shop-run-7/0"], ["shop-run-7/0"], [], []]


async def test_conversations_are_counted_once_since_the_route_is_used(client: Client, start: Start) -> None:
    stable, canary = await start(), await start()

    async def conversations() -> list[int]:
        return [backend["conversationsSinceChange"] for backend in (await client.observed())["backends"]]

    client.route(stable.weighing(0), canary.weighing(100))
    for question in ("Hello", "Hello", "Another"):
        await client.ask(question)
    assert await conversations() == [0, 2]
    client.route(stable.weighing(100), canary.weighing(0))
    await client.ask("Hello")
    assert await conversations() == [1, 0]


async def test_head_has_a_length_and_no_body(client: Client, start: Start) -> None:
    client.route((await start()).weighing(100))

    async with client.http.head(client.url + "/v1/models") as response:
        assert (response.status, await response.read()) == (200, b"")
        assert int(response.headers["Content-Length"]) > 0
    assert (await client.get("/v1/models"))[0] == 200


@pytest.mark.parametrize(("weight", "is_canary"), [(0, False), (50, False), (51, True), (100, True)])
async def test_everything_but_answers_goes_to_the_version_with_most_of_the_traffic(
    client: Client, start: Start, weight: int, is_canary: bool
) -> None:
    stable, canary = await start(), await start()
    client.route(stable.weighing(100 - weight), canary.weighing(weight), step="shop-run-7/0")
    most = canary if is_canary else stable

    assert (await client.get("/v1/models"))[1]["version"] == most.digest
    assert (await client.get(CHAT))[1]["version"] == most.digest
    assert (await client.post("/v1/feedback", json={}))[1]["version"] == most.digest
    assert [request.headers.get("tunegate-step") for request in most.asked] == [None] * 3
    assert await client.count("answers") == [0, 0]


@pytest.mark.parametrize("path", ANSWER_PATHS)
async def test_every_path_of_answers_is_shared_and_counted(client: Client, start: Start, path: str) -> None:
    stable, canary = await start(), await start()
    client.route(stable.weighing(0), canary.weighing(100), step="shop-run-7/0")

    assert (await client.post(path, json={}))[1]["version"] == canary.digest
    assert canary.asked[0].headers["tunegate-step"] == "shop-run-7/0"
    assert await client.count("answers") == [0, 1]


async def test_feedback_goes_to_the_first_version_that_can_be_reached(client: Client, start: Start) -> None:
    canary = await start()
    client.route(refused(50), canary.weighing(50))

    status, answer = await client.post("/v1/feedback", json={"response_id": "r", "verdict": "down"})

    assert (status, answer["version"]) == (200, canary.digest)
    assert json.loads(canary.bodies[0]) == {"response_id": "r", "verdict": "down"}
    assert await client.count("errors") == [0, 0]  # they count chat completions


async def test_a_canary_that_cannot_be_reached_is_replaced_by_the_stable_version(client: Client, start: Start) -> None:
    stable = await start()
    client.route(stable.weighing(0), refused(100))

    status, answer = await client.ask("Hello")

    assert (status, answer["version"]) == (200, stable.digest)
    assert await client.count("answers") == [1, 0]
    assert await client.count("errors") == [0, 1]


async def test_a_stable_version_that_cannot_be_reached_is_never_replaced_by_its_canary(
    client: Client, start: Start
) -> None:
    canary = await start()
    client.route(refused(100), canary.weighing(0))

    async with client.http.post(client.url + CHAT, json={}) as response:
        error = (await response.json())["error"]

    assert (response.status, response.headers["Retry-After"]) == (503, "1")
    assert error["type"] == "server_error"
    assert "try again" in error["message"]
    assert canary.asked == []
    assert await client.count("errors") == [1, 0]


async def test_without_a_version_clients_are_asked_to_come_back(client: Client) -> None:
    async with client.http.post(client.url + CHAT, json={}) as response:
        assert response.status == 503
        assert "No version is serving yet" in (await response.json())["error"]["message"]
        assert response.headers["Retry-After"] == "1"


async def test_a_refusal_has_the_form_of_its_path(client: Client) -> None:
    async with client.http.post(client.url + GENERATION_PATH, json={}) as response:
        error = await response.json()

    assert (response.status, error["code"]) == (503, "ModelUnavailable")
    assert error["request_id"] == response.headers["x-request-id"]


async def test_errors_of_a_version_pass_and_are_counted(client: Client, start: Start) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {}}, status=int(request.headers["x-status"]))

    client.route((await start(answer)).weighing(100))

    statuses = [(await client.ask("Hello", **{"x-status": str(status)}))[0] for status in (400, 500, 503, 200)]

    assert statuses == [400, 500, 503, 200]
    assert (await client.count("errors"), await client.count("answers")) == ([2], [1])


async def test_a_version_that_breaks_off_before_its_answer_is_not_asked_twice(client: Client, start: Start) -> None:
    async def leave(request: web.Request) -> web.StreamResponse:
        assert request.transport
        request.transport.abort()
        return web.Response()

    stable, canary = await start(), await start(leave)
    client.route(stable.weighing(0), canary.weighing(100))

    status, answer = await client.ask("Hello")

    assert (status, stable.asked) == (503, [])
    assert "broke off before it answered" in answer["error"]["message"]
    assert await client.count("errors") == [0, 1]


async def test_a_version_that_breaks_off_in_its_answer_leaves_the_end_missing(client: Client, start: Start) -> None:
    go_on = asyncio.Event()

    async def leave(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"half of an ")
        await go_on.wait()
        assert request.transport
        request.transport.abort()
        return response

    client.route((await start(leave)).weighing(100))

    async with client.http.post(client.url + CHAT, json={}) as response:
        assert await response.content.readexactly(11) == b"half of an "
        go_on.set()
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.content.read()
    assert await client.count("errors") == [1]


@pytest.mark.parametrize("answer_begins", [True, False], ids=["in the answer", "before the answer"])
async def test_a_client_that_leaves_ends_the_work_for_it(client: Client, start: Start, answer_begins: bool) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if answer_begins:
            await response.prepare(request)
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return response

    client.route((await start(answer)).weighing(100))
    asking = asyncio.create_task(client.ask("Hello"))
    await asyncio.wait_for(begun.wait(), DEADLINE_SECONDS)

    asking.cancel()

    await asyncio.wait_for(ended.wait(), DEADLINE_SECONDS)
    assert await client.count("errors") == [0]


async def test_a_chat_completion_over_the_limit_is_refused(client: Client, start: Start) -> None:
    version = await start()
    client.route(version.weighing(100))

    status, answer = await client.post(CHAT, data=io.BytesIO(b"x" * (2**20 + 1)))

    assert (status, version.asked) == (413, [])
    assert "larger than 1 MiB" in answer["error"]["message"]
    assert (await client.post(CHAT, data=io.BytesIO(b"x" * 2**20)))[0] == 200
    assert (await client.post("/v1/files", data=io.BytesIO(b"x" * 2**21)))[0] == 200


async def test_the_log_says_who_answered_and_nothing_of_what_was_asked(
    client: Client, start: Start, running: tuple[str, Path, Child]
) -> None:
    version = await start()
    client.route(version.weighing(100))
    await client.ask("my secret")
    await client.get("/v1/models?key=my-secret")

    def requests() -> list[tuple[object, ...]]:
        lines = [line for line in logged(running[2]) if line.get("version") == version.digest[7:19]]
        return [tuple(line[name] for name in ("method", "path", "status")) for line in lines]

    await wait_for_async(lambda: ("GET", "/v1/models", 200) in requests())
    assert ("POST", "/v1/chat/completions", 200) in requests()
    assert "secret" not in running[2].log.read_text()


async def test_a_header_that_is_not_utf8_is_no_problem(client: Client, start: Start) -> None:
    version = await start()
    client.route(version.weighing(100))
    host, port = client.url.removeprefix("http://").split(":")

    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n")
    writer.write(b"x-conversation-id: caf\xe9\r\n\r\n{}")
    answer = await reader.read()
    writer.close()

    assert answer.startswith(b"HTTP/1.1 200")


async def test_our_own_routes_are_never_forwarded(client: Client, start: Start) -> None:
    version = await start()
    client.route(version.weighing(100))

    status, answer = await client.get("/_tunegate/metrics")

    assert (status, version.asked) == (404, [])
    assert "/_tunegate/route" in answer["error"]["message"]


def test_a_port_in_use_is_one_sentence_and_status_1(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with start_proxy(tmp_path, port) as child:
            child._process.wait(DEADLINE_SECONDS)

    assert child.exit_code == 1
    assert child.tail() == (
        f"proxy: Port {port} of 127.0.0.1 can't be used (Address already in use); choose another one with --port."
    )
    assert "Traceback" not in child.log.read_text()


async def test_when_told_to_end_it_finishes_the_answers_under_way(tmp_path: Path, start: Start) -> None:
    go_on, port = asyncio.Event(), free_port()
    version = await start(streaming(go_on))
    url = f"http://127.0.0.1:{port}"
    child = start_proxy(tmp_path, port)
    async with aiohttp.ClientSession() as http:
        client = Client(url, tmp_path / "route.json", http)
        client.route(version.weighing(100))
        await asyncio.to_thread(child.wait_until, lambda: answers(f"{url}/_tunegate/route"), seconds=DEADLINE_SECONDS)
        async with http.post(url + CHAT, json={}) as response:
            assert await response.content.readline() == b"data: one\n"
            stopping = asyncio.create_task(asyncio.to_thread(child.stop))
            await wait_for_async(lambda: not listens(port))
            go_on.set()
            assert await response.content.read() == b"\ndata: two\n\n"
        await stopping

    assert child.exit_code == 0


@pytest.fixture
async def impatient(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Client]:
    """A client of a proxy that doesn't wait longer than a moment for that which the parameter names."""
    monkeypatch.setattr(f"tunegate.local.proxy.{request.param}_SECONDS", 0.3)
    port = free_port()
    serving = asyncio.create_task(serve(port, tmp_path / "route.json"))
    await wait_for_async(lambda: listens(port))
    async with aiohttp.ClientSession() as http:
        yield Client(f"http://127.0.0.1:{port}", tmp_path / "route.json", http)
    serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving


@pytest.mark.parametrize(
    ("impatient", "sent", "said"),
    [
        ("WAITING", b"", b""),
        ("WAITING", b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-a", b""),
        ("REQUEST", b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{", b"HTTP/1.1 408 "),
    ],
    indirect=["impatient"],
    ids=["nothing", "half a head", "half a body"],
)
async def test_what_is_never_sent_whole_is_not_waited_for(
    impatient: Client, sent: bytes, said: bytes, start: Start
) -> None:
    impatient.route((await start()).weighing(100))
    host, port = impatient.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(sent)

    answer = await asyncio.wait_for(reader.read(len(said) or 1), DEADLINE_SECONDS)

    writer.close()
    assert answer == said


@pytest.mark.parametrize("impatient", ["READING"], indirect=True)
async def test_who_takes_nothing_of_an_answer_is_let_go_and_the_version_with_it(
    impatient: Client, start: Start
) -> None:
    ended = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 2**20)
        finally:
            ended.set()

    impatient.route((await start(answer)).weighing(100))
    host, port = impatient.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /v1/files/1 HTTP/1.1\r\nHost: x\r\n\r\n")

    await asyncio.wait_for(ended.wait(), DEADLINE_SECONDS)
    writer.close()
