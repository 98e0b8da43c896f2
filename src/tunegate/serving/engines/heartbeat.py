"""Whether an engine works: its requests and the steps it took so far, which grow with one that is busy but not hung."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec

PATH = "/progress"


@dataclass(frozen=True)
class Progress:
    """What an engine did since it started, in a unit of its own, and how many requests it has now."""

    steps: float
    requests: float

    def moved_since(self, earlier: Progress | None) -> bool:
        """Whether it has nothing to do, or did something."""
        return not self.requests or earlier is None or self.steps != earlier.steps


def read_json(body: bytes) -> Progress:
    """Ours, of the embedded engine. Raises DecodeError."""
    return msgspec.json.decode(body, type=Progress)


def read_vllm(body: bytes) -> Progress:
    """Of vLLM's metrics: tokens that were read or written, and requests that run or wait."""
    steps = requests = 0.0
    for line in body.decode().splitlines():
        name, _, value = line.rpartition(" ")
        metric = name.partition("{")[0]
        if metric in ("vllm:prompt_tokens_total", "vllm:generation_tokens_total"):
            steps += float(value)
        elif metric in ("vllm:num_requests_running", "vllm:num_requests_waiting"):
            requests += float(value)
    return Progress(steps, requests)


class Heartbeat:
    """An ASGI application around an engine's own that answers `GET /progress`. A step is a piece of an answer, or a
    pass through the model, of which `step` is told: a long prompt takes many before its first piece."""

    def __init__(self) -> None:
        self._app: Callable[..., Awaitable[None]] | None = None
        self._steps = 0
        self._requests = 0

    def around(self, app: Callable[..., Awaitable[None]]) -> Heartbeat:
        self._app = app
        return self

    def step(self, *_: Any) -> None:
        self._steps += 1

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert self._app is not None
        if scope["type"] == "http" and scope["path"] == PATH:
            body = msgspec.json.encode(Progress(self._steps, self._requests))
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": body})
            return
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return

        async def counted(message: Any) -> None:
            self.step()
            await send(message)

        self._requests += 1
        try:
            await self._app(scope, receive, counted)
        finally:
            self._requests -= 1
