"""A running proxy, a client that can change its route, and versions that answer as a test tells them."""

from __future__ import annotations

import itertools
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tunegate.api.codec import to_json
from tunegate.local.route import Backend, Route
from tunegate.processes import Child, answers, free_port

CHAT = "/v1/chat/completions"
DEADLINE_SECONDS = 100.0

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
digests = (f"sha256:{number:012x}{0:052}" for number in itertools.count(1))


@dataclass
class Version:
    """A real server that stands for one version, and remembers what it was asked."""

    digest: str
    server: TestServer
    asked: list[web.Request] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    def weighing(self, weight: int) -> Backend:
        return Backend(version=self.digest, url=f"http://127.0.0.1:{self.server.port}", weight=weight)


@dataclass
class Client:
    """A client of a running proxy, who can replace its route file."""

    url: str
    route_file: Path
    http: aiohttp.ClientSession

    def write(self, text: bytes) -> None:
        replacement = self.route_file.with_suffix(".new")
        replacement.write_bytes(text)
        replacement.replace(self.route_file)

    def route(self, *backends: Backend, salt: str = "", step: str = "") -> None:
        self.write(to_json(Route(salt=salt, step=step, backends=backends)))

    async def observed(self) -> dict[str, Any]:
        return (await self.get("/_tunegate/route"))[1]

    async def count(self, name: str) -> list[int]:
        """What the status route counts for each backend."""
        return [backend[name] for backend in (await self.observed())["backends"]]

    async def get(self, path: str) -> tuple[int, dict[str, Any]]:
        async with self.http.get(self.url + path) as response:
            return response.status, await response.json()

    async def post(self, path: str, **arguments: Any) -> tuple[int, dict[str, Any]]:
        async with self.http.post(self.url + path, **arguments) as response:
            return response.status, await response.json()

    async def ask(self, *messages: str, **headers: str) -> tuple[int, dict[str, Any]]:
        """A chat completion; messages are the user's and the assistant's in turn."""
        roles = itertools.cycle(("user", "assistant"))
        body = {"messages": [{"role": role, "content": text} for role, text in zip(roles, messages, strict=False)]}
        return await self.post(CHAT, json=body, headers=headers)


Start = Callable[..., Awaitable[Version]]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """`await start(answer)`: a version whose requests `answer` answers; without one, by its digest."""
    versions: list[Version] = []

    async def start_version(answer: Answer | None = None) -> Version:
        async def handle(request: web.Request) -> web.StreamResponse:
            version.asked.append(request)
            if answer:
                return await answer(request)
            version.bodies.append(await request.read())
            return web.json_response({"version": version.digest})

        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", handle)
        version = Version(next(digests), TestServer(app, host="127.0.0.1"))
        await version.server.start_server()
        versions.append(version)
        return version

    yield start_version
    for version in versions:
        await version.server.close()


def start_proxy(folder: Path, port: int) -> Child:
    route_file = folder / "route.json"
    argv = [sys.executable, "-m", "tunegate.local.proxy", "--port", str(port), "--route", str(route_file)]
    return Child.start("proxy", argv, log=folder / "proxy.log")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path, Child]]:
    """One proxy for this file: its URL, its folder and its process."""
    folder, port = tmp_path_factory.mktemp("proxy"), free_port()
    url = f"http://127.0.0.1:{port}"
    with start_proxy(folder, port) as child:
        child.wait_until(lambda: answers(f"{url}/_tunegate/route"), seconds=DEADLINE_SECONDS)
        yield url, folder, child


@pytest.fixture
async def client(running: tuple[str, Path, Child]) -> AsyncIterator[Client]:
    """A client of the shared proxy; no version serves yet."""
    url, folder, _ = running
    timeout = aiohttp.ClientTimeout(total=DEADLINE_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as http:
        client = Client(url, folder / "route.json", http)
        client.route()
        yield client


def refused(weight: int) -> Backend:
    """A backend for which nobody listens."""
    return Backend(version=next(digests), url=f"http://127.0.0.1:{free_port()}", weight=weight)


def listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
