"""A small gateway that does what HTTPRoutes ask for as Traefik and Envoy Gateway do, with the faults of both.

It takes a prefix for what Gateway API says it is: a match, not a rewrite. An answer without a timeout of its own is cut
after `default_timeout`, as Envoy does. It hears of new endpoints late, and sends to those that it knows until then.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

from tests.unit.serving.standin import in_thread
from tunegate.processes import free_port

Object = dict[str, Any]
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "host", "content-length"}


@dataclass
class Gateway:
    """`routes` are HTTPRoutes; `endpoints` are URLs by the name of a Service."""

    url: str = ""
    routes: Sequence[Object] = ()
    endpoints: Mapping[str, Sequence[str]] = field(default_factory=dict)
    default_timeout: float = 15.0
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
        found = self._match(request)
        if found is None:
            return web.Response(status=404, text="no route")
        rule, prefix = found
        endpoints = self.endpoints.get(self._backend(rule), ())
        if not endpoints:
            return web.Response(status=503, text="no endpoints")
        path = _rewritten(rule, prefix, request.path_qs)
        asked = rule.get("timeouts", {}).get("request")
        seconds = self.default_timeout if asked is None else float(asked.removesuffix("s"))
        response = web.StreamResponse()
        try:
            async with asyncio.timeout(seconds or None):
                url = f"{endpoints[next(self._turns) % len(endpoints)]}{path}"
                return await self._forward(request, url, response)
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

    async def _forward(self, request: web.BaseRequest, url: str, response: web.StreamResponse) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
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

    def _match(self, request: web.BaseRequest) -> tuple[Object, str] | None:
        """The rule with the longest prefix among the routes of that host, and the prefix."""
        host = request.host.partition(":")[0]
        found = [
            (rule, match["path"]["value"])
            for route in self.routes
            if not route["spec"].get("hostnames") or host in route["spec"]["hostnames"]
            for rule in route["spec"]["rules"]
            for match in rule["matches"]
            if f"{request.path}/".startswith(f"{match['path']['value'].rstrip('/')}/")
        ]
        return max(found, key=lambda pair: len(pair[1]), default=None)

    def _backend(self, rule: Object) -> str:
        """The Service whose turn it is, by weight."""
        turns = [ref["name"] for ref in rule["backendRefs"] for _ in range(ref["weight"])]
        return str(turns[next(self._turns) % len(turns)])


def _rewritten(rule: Object, prefix: str, path: str) -> str:
    for rewrite in (each["urlRewrite"]["path"] for each in rule.get("filters", ()) if each["type"] == "URLRewrite"):
        assert rewrite["type"] == "ReplacePrefixMatch"
        rest = path.removeprefix(prefix.rstrip("/"))
        return f"{rewrite['replacePrefixMatch'].rstrip('/')}{rest}" or "/"
    return path


@contextmanager
def run_gateway(*routes: Object, **settings: Any) -> Iterator[Gateway]:
    gateway = Gateway(routes=routes, **settings)
    end = in_thread(gateway.run)
    try:
        yield gateway
    finally:
        end()
