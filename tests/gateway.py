"""A small gateway that does what HTTPRoutes ask for as Traefik and Envoy Gateway do, with the faults of both.

It takes a prefix for what Gateway API says it is: a match, not a rewrite. An answer without a timeout of its own is cut
after `default_timeout`, as Envoy does. It hears of new endpoints late, and sends to those that it knows until then.
Whose turn it is within a rule is decided as Traefik and Envoy Gateway do (`InTurns`), or as Envoy does by weighted
clusters (`ByChance`); docs/design/traffic.md says where that was read.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Protocol

import aiohttp
from aiohttp import web

from tests.unit.serving.standin import in_thread
from tunegate.processes import free_port

Object = dict[str, Any]
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "host", "content-length"}


class Split(Protocol):
    def pick(self, rule: Object) -> str:
        """The Service of a rule that gets the next request."""


class InTurns:
    """Weighted round robin, a schedule for each rule: whoever is due first is next, and due again 1/weight later."""

    def __init__(self) -> None:
        self._due: dict[int, dict[str, Fraction]] = {}

    def pick(self, rule: Object) -> str:
        each = {ref["name"]: Fraction(1, ref["weight"]) for ref in rule["backendRefs"] if ref["weight"]}
        due = self._due.setdefault(id(rule), dict(each))
        name = min(due, key=lambda name: due[name])
        due[name] += each[name]
        return name


class ByChance:
    """A random number for each request."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 (no secret)

    def pick(self, rule: Object) -> str:
        refs = rule["backendRefs"]
        return str(self._random.choices([ref["name"] for ref in refs], [ref["weight"] for ref in refs])[0])


@dataclass(frozen=True)
class Forwarded:
    """What becomes of a request: the rule that it falls under, the Service it goes to, its path and headers there."""

    rule: Object
    service: str
    path: str
    headers: Mapping[str, str]


@dataclass
class Gateway:
    """`routes` are HTTPRoutes; `endpoints` are URLs by the name of a Service."""

    url: str = ""
    routes: Sequence[Object] = ()
    endpoints: Mapping[str, Sequence[str]] = field(default_factory=dict)
    default_timeout: float = 15.0
    split: Split = field(default_factory=InTurns)
    _turns: Iterator[int] = field(default_factory=itertools.count)

    def serve_from(self, endpoints: Mapping[str, Sequence[str]], *, after: float = 0.0) -> None:
        """Use these endpoints, in `after` seconds: until then it does not know of them."""
        self._loop.call_soon_threadsafe(lambda: self._loop.call_later(after, setattr, self, "endpoints", endpoints))

    async def run(self, stop: asyncio.Event, started: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as self._session:
            runner = web.ServerRunner(web.Server(self._handle, access_log=None), shutdown_timeout=1)
            await runner.setup()
            port = free_port()
            await web.TCPSite(runner, "127.0.0.1", port).start()
            self.url = f"http://127.0.0.1:{port}"
            started()
            await stop.wait()
            await runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        forwarded = self.forward(request.path_qs, headers)
        if forwarded is None:
            return web.Response(status=404, text="no route")
        endpoints = self.endpoints.get(forwarded.service, ())
        if not endpoints:
            return web.Response(status=503, text="no endpoints")
        asked = forwarded.rule.get("timeouts", {}).get("request")
        seconds = self.default_timeout if asked is None else float(asked.removesuffix("s"))
        response = web.StreamResponse()
        try:
            async with asyncio.timeout(seconds or None):
                url = f"{endpoints[next(self._turns) % len(endpoints)]}{forwarded.path}"
                return await self._relay(request, url, forwarded.headers, response)
        except TimeoutError:
            if not response.prepared:
                return web.Response(status=504, text="upstream request timeout")
            assert request.transport is not None
            request.transport.abort()
            return response
        except aiohttp.ClientError as error:
            if not response.prepared:
                return web.Response(status=502, text=f"bad gateway: {error}")
            assert request.transport is not None
            request.transport.abort()
            return response

    async def _relay(
        self, request: web.BaseRequest, url: str, headers: Mapping[str, str], response: web.StreamResponse
    ) -> web.StreamResponse:
        headers = {name: value for name, value in headers.items() if name not in _HOP_BY_HOP}
        body = await request.read()
        async with self._session.request(request.method, url, headers=headers, data=body) as reply:
            response.set_status(reply.status)
            for name, value in reply.headers.items():
                if name.lower() not in _HOP_BY_HOP:
                    response.headers[name] = value
            await response.prepare(request)
            async for chunk in reply.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
        return response

    def forward(self, path: str, headers: Mapping[str, str]) -> Forwarded | None:
        """What becomes of a request; names of headers are in lower case. None where no rule is for it."""
        host = headers.get("host", "").partition(":")[0]
        found = [
            (match, rule)
            for route in self.routes
            if not route["spec"].get("hostnames") or host in route["spec"]["hostnames"]
            for rule in route["spec"]["rules"]
            for match in rule["matches"]
            if _fits(match, path.partition("?")[0])
        ]
        if not found:
            return None
        match, rule = max(found, key=lambda pair: _precedence(pair[0]))
        prefix = match["path"]["value"].rstrip("/")
        headers = dict(headers)
        for each in rule.get("filters", ()):
            if each["type"] == "RequestHeaderModifier":
                changes = each["requestHeaderModifier"]
                headers = {name: value for name, value in headers.items() if name not in changes.get("remove", ())}
                headers |= {item["name"].lower(): item["value"] for item in changes.get("set", ())}
            elif each["type"] == "URLRewrite":
                path = _rewritten(each["urlRewrite"]["path"], prefix, path)
        return Forwarded(rule, self.split.pick(rule), path, headers)


def _fits(match: Object, path: str) -> bool:
    value = match["path"]["value"]
    if match["path"]["type"] == "Exact":
        return bool(path == value)
    return f"{path}/".startswith(f"{value.rstrip('/')}/")


def _precedence(match: Object) -> tuple[bool, int]:
    """An exact path, then the longest prefix."""
    return match["path"]["type"] == "Exact", len(match["path"]["value"])


def _rewritten(rewrite: Object, prefix: str, path: str) -> str:
    path, mark, query = path.partition("?")
    if rewrite["type"] == "ReplaceFullPath":
        path = rewrite["replaceFullPath"]
    else:
        path = f"{rewrite['replacePrefixMatch'].rstrip('/')}{path.removeprefix(prefix)}" or "/"
    return f"{path}{mark}{query}"


@contextmanager
def run_gateway(*routes: Object, **settings: Any) -> Iterator[Gateway]:
    gateway = Gateway(routes=routes, **settings)
    end = in_thread(gateway.run)
    try:
        yield gateway
    finally:
        end()
