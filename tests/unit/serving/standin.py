"""An engine that does as it is told, and a thread to run servers in."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry

from tests.documents import Documents
from tunegate.api.versions import ModelVersion
from tunegate.feedback import ResponseIds
from tunegate.processes import free_port
from tunegate.serving.limits import Embedded, Sampling
from tunegate.serving.tokens import Tokens

DIGEST = "sha256:" + "ab" * 32
KEY = bytes(range(32))
WAIT = "(wait until the test says `go_on`)"
MODEL = "shop-assistant"
USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
TOKENS = Tokens(100, {"pad_token_id": (0,), "bos_token_id": (1,), "eos_token_id": (2, 7)})
VERSION = ModelVersion(
    model=MODEL,
    name=f"{MODEL}/run-1/checkpoint-10",
    uri=f"s3://models/{MODEL}/run-1/checkpoint-10/",
    digest=DIGEST,
    format="huggingface",
    created=datetime(2026, 1, 2, tzinfo=UTC),
)


@dataclass
class StandIn:
    """An engine whose answer depends on what the last message asks for.

    `script`, where there is one, is sent instead as it is, in these pieces; each of `says`, too, is the text of one
    answer, or its deltas, or WAITs for `go_on`. `refusal` is the status of every answer, and an `endless` one goes on
    as that to "go on". `own_ids` makes it name answers itself and end with [DONE], as vLLM does; with `usage_at_finish`
    the last chunk with a choice has the usage, as in `transformers serve`. It is not `healthy` while it loads.
    """

    url: str = ""
    model: str = "/models/x@main"
    own_ids: bool = False
    asked: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    script: list[bytes] = field(default_factory=list)
    says: list[str | list[dict[str, Any]]] = field(default_factory=list)
    usage_at_finish: bool = False
    refusal: int | None = None
    endless: bool = False
    healthy: bool = True
    ended: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_post("/v1/completions", self.chat)
        app.router.add_get("/health", self.health)
        return app

    async def health(self, request: web.Request) -> web.Response:
        return web.json_response({}, status=200 if self.healthy else 503)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body)
        self.paths.append(request.path)
        self.keys.append(request.headers.get("authorization", ""))
        if self.refusal:
            return web.json_response({"error": {"message": "no"}}, status=self.refusal)
        while self.says[:1] == [WAIT] and not self.go_on.is_set():
            await asyncio.sleep(0.005)
        self.says = [said for said in self.says if said != WAIT or not self.go_on.is_set()]
        if self.says:
            said = self.says.pop(0)
            if isinstance(said, str):
                said = [{"content": said[at : at + 3]} for at in range(0, len(said), 3)]
            end = "tool_calls" if any("tool_calls" in delta for delta in said) else "stop"
            self.script = [*(self._chunk("x", delta) for delta in said), self._chunk("x", {}, end)]
        if self.script:
            return await self._recite(request)
        text = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
        given = "chatcmpl-engine" if self.own_ids else request.headers.get("x-request-id", "none given")
        if text == "fail":
            raise web.HTTPInternalServerError(text="CUDA went away")
        if text == "refuse":
            return web.json_response({"detail": "too clever"}, status=422)
        if text == "garbage":
            return web.Response(text="<html>")
        if not body.get("stream"):
            try:
                while (self.endless or text == "go on") and not self.go_on.is_set():
                    await asyncio.sleep(0.005)
            except asyncio.CancelledError:
                self.ended.set()
                raise
            return web.json_response(self._whole(given))
        return await self._stream(request, given, text)

    async def _recite(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for piece in self.script:
            await response.write(piece)
        return response

    async def _stream(self, request: web.Request, given: str, text: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        try:
            await response.write(self._chunk(given, {"role": "assistant"}))
            await response.write(self._chunk(given, {"content": 'a "model":"/models/x@main" '}))
            if text == "break off":
                assert request.transport is not None
                request.transport.abort()
                return response
            if text == "report":
                await response.write(b'data: {"error": "cache is full"}\n\n')
                return response
            while (self.endless or text == "go on") and not self.go_on.is_set():
                await response.write(self._chunk(given, {"content": "x" * 1000}))
                await asyncio.sleep(0.005)
            for byte in self._chunk(given, {"content": "夏"}):  # split anywhere
                await response.write(bytes([byte]))
            await response.write(self._chunk(given, {}, "stop") + (b"data: [DONE]\n\n" if self.own_ids else b""))
        except (ConnectionError, asyncio.CancelledError):
            self.ended.set()
            raise
        return response

    def _whole(self, given: str) -> dict[str, Any]:
        message = {"role": "assistant", "content": "Blue."}
        choices = [{"index": 0, "finish_reason": "stop", "message": message}]
        return self._around(given, "chat.completion") | {"choices": choices, "usage": USAGE}

    def _chunk(self, given: str, delta: dict[str, Any], finish: str | None = None) -> bytes:
        chunk = self._around(given, "chat.completion.chunk")
        chunk["choices"] = [{"index": 0, "delta": delta, "finish_reason": finish}]
        if finish and self.usage_at_finish:
            chunk["usage"] = USAGE
        return b"data: " + json.dumps(chunk, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"

    def _around(self, given: str, kind: str) -> dict[str, Any]:
        return {"id": given, "created": 1, "model": self.model, "object": kind}


@dataclass
class Server:
    """Our routes, running."""

    url: str
    engine: StandIn
    registry: CollectorRegistry
    store: Documents
    ids: ResponseIds
    state: SimpleNamespace

    def count(self, name: str, **labels: str) -> float:
        """A counter or gauge by name, added up over the labels that aren't given; model_version is filled in."""
        wanted = {"model_version": "ab" * 6, **labels}.items()
        samples = (sample for family in self.registry.collect() for sample in family.samples)
        return sum(sample.value for sample in samples if sample.name == name and wanted <= sample.labels.items())


def in_thread(main: Callable[[asyncio.Event, Callable[[], None]], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run `main(stop, started)` on a loop of its own; returns once it has started, with a function that ends it."""
    loop = asyncio.new_event_loop()
    stop, started = asyncio.Event(), threading.Event()

    def work() -> None:
        with closing(loop):
            loop.run_until_complete(main(stop, started.set))

    thread = threading.Thread(target=work)
    thread.start()
    assert started.wait(100)

    def end() -> None:
        loop.call_soon_threadsafe(stop.set)
        thread.join(100)
        assert not thread.is_alive()

    return end


@contextmanager
def run_engine(stand_in: StandIn | None = None) -> Iterator[StandIn]:
    stand_in = stand_in or StandIn()

    async def main(stop: asyncio.Event, started: Callable[[], None]) -> None:
        runner = web.AppRunner(stand_in.application(), handler_cancellation=True, shutdown_timeout=1)
        await runner.setup()
        port = int(stand_in.url.rpartition(":")[2]) if stand_in.url else free_port()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        stand_in.url = f"http://127.0.0.1:{port}"
        started()
        await stop.wait()
        stand_in.go_on.set()
        await runner.cleanup()

    end = in_thread(main)
    try:
        yield stand_in
    finally:
        end()


def embedded(context: int = 1000) -> Embedded:
    return Embedded(Sampling(0.0), context, lambda texts: sum(len(text.split()) for text in texts))


def now() -> datetime:
    return datetime(2026, 3, 4, 5, 6, 7, 890000, tzinfo=UTC)


__all__ = [
    "DIGEST",
    "KEY",
    "MODEL",
    "TOKENS",
    "USAGE",
    "VERSION",
    "Documents",
    "Server",
    "StandIn",
    "embedded",
    "in_thread",
    "now",
    "run_engine",
]
