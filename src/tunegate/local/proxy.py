"""The one URL of the local platform: weighted, streaming and sticky to conversations.

It runs as a program of its own (`python -m tunegate.local.proxy --port PORT --route FILE`) and knows of versions only
what the route file says: no promotion, no store. It forwards bytes as they come, and reads nothing but the beginning
of a conversation.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import secrets
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import aiohttp
import msgspec
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from tunegate import logs
from tunegate.api.codec import from_json, to_json
from tunegate.api.digest import short
from tunegate.api.errors import ServingError, UsageError
from tunegate.api.traffic import STEP_HEADER, is_answer
from tunegate.local.route import (
    FEEDBACK_PATHS,
    MOST_CONVERSATIONS,
    Backend,
    ObservedBackend,
    ObservedRoute,
    Route,
    conversation_of,
    targets,
)
from tunegate.serving.events import ApiError
from tunegate.serving.protocols import error_body

logger = logging.getLogger("tunegate.local.proxy")  # not __main__, which it is as a program

HOST = "127.0.0.1"
OWN = "/_tunegate/"
STATUS = "/_tunegate/route"

BODY_LIMIT = 2**20  # what aiohttp's request.read() allows where there is no web.Application
RETRY_SECONDS = 1
DRAIN_SECONDS = 8.0  # less than processes.GRACE_SECONDS, after which we are killed
CONNECT_SECONDS = 5.0
IDLE_SECONDS = 3.0  # uvicorn closes idle connections after 5 s, and a POST sent at that moment would be lost

REQUEST_SECONDS = 20.0  # for the whole body of what may have to be sent twice
WAITING_SECONDS = 20.0  # for a whole head, and between two requests
READING_SECONDS = 60.0  # while a client takes nothing of an answer that waits for it

# About one connection only (RFC 9110, 7.6.1); besides, `host` names us, and `expect` we have answered already.
HOP_BY_HOP = {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te"}
NOT_FORWARDED = HOP_BY_HOP | {"trailer", "transfer-encoding", "upgrade", "host", "expect"}
UNREACHABLE = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


class RouteFile:
    """The route in a file that is replaced whole. A text that is no route is reported, and the last good one stays."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.route = Route(salt="")
        self.problem = ""
        self._seen: tuple[int, int, int] | None = None

    def refresh(self) -> bool:
        """Read the file if it was replaced; says whether the route is another one now."""
        before, problem = self.route, self.problem
        try:
            found = self.path.stat()
            seen = (found.st_ino, found.st_mtime_ns, found.st_size)
            if seen == self._seen:
                return False
            self.route = from_json(self.path.read_bytes(), Route, str(self.path))
            self._seen, self.problem = seen, ""
        except UsageError as error:
            self._seen, self.problem = seen, str(error)
        except OSError as error:
            self._seen, self.problem = None, f"{self.path} can't be read: {error.strerror}."
        if self.problem and self.problem != problem:
            logger.warning("the route file can't be used; the last good route stays", extra={"problem": self.problem})
        return self.route != before


class Proxy:
    """Forwards requests over `session` along the route in `file`, and counts what became of them."""

    def __init__(self, file: RouteFile, session: aiohttp.ClientSession) -> None:
        self._file = file
        self._session = session
        self._answers: Counter[str] = Counter()
        self._answers_since_change: Counter[str] = Counter()
        self._conversations: defaultdict[str, set[int]] = defaultdict(set)  # since the change; the hash of each
        self._errors: Counter[str] = Counter()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request: our own status, or what a backend says."""
        if self._file.refresh():
            self._answers_since_change.clear()
            self._conversations.clear()
            weights = {short(backend.version): backend.weight for backend in self._file.route.backends}
            logger.info("route changed", extra={"weights": weights})
        if request.path == STATUS:
            return web.Response(body=to_json(self.observed()), content_type="application/json")
        if request.path.startswith(OWN):
            return _refusal(request, 404, f"There is no {request.path}; the route is at {STATUS}.")
        began, status = time.perf_counter(), 0  # no status: broken off
        try:
            response = await self._forward(request)
            status = response.status
            return response
        finally:
            ended = time.perf_counter()
            fields: dict[str, object] = {"method": request.method, "path": request.rel_url.raw_path, "status": status}
            fields |= {"version": short(request.get("version", "")), "milliseconds": round(1000 * (ended - began))}
            logger.info("request ended", extra=fields)

    def observed(self) -> ObservedRoute:
        """The route in use and the counts of its backends."""
        route = self._file.route
        backends = tuple(
            ObservedBackend(
                **msgspec.structs.asdict(backend),
                answers=self._answers[backend.version],
                answers_since_change=self._answers_since_change[backend.version],
                conversations_since_change=len(self._conversations[backend.version]),
                errors=self._errors[backend.version],
            )
            for backend in route.backends
        )
        return ObservedRoute(salt=route.salt, backends=backends, problem=self._file.problem)

    async def _forward(self, request: web.BaseRequest) -> web.StreamResponse:
        route = self._file.route
        if not route.backends:
            return _refusal(request, 503, "No version is serving yet; try again in a moment.")
        # Whatever may have to be sent twice, or be looked into, is read whole; the rest passes as it comes.
        is_question = is_answer(request.method, request.path)
        whole = is_question or (request.method == "POST" and request.path in FEEDBACK_PATHS)
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                body = await request.read() if whole else None
        except web.HTTPRequestEntityTooLarge:
            return _refusal(
                request, 413, f"The request is larger than {BODY_LIMIT // 2**20} MiB; send fewer or shorter messages."
            )
        except TimeoutError:
            refusal = _refusal(
                request, 408, f"The request did not come within {REQUEST_SECONDS:.0f} s; send it at once."
            )
            refusal.force_close()
            return refusal
        headers = _end_to_end(request.headers)
        headers.popall(STEP_HEADER, None)  # a client's word is none
        headers["X-Forwarded-For"] = ", ".join([*headers.popall("X-Forwarded-For", ()), request.remote or HOST])
        if is_question and route.step:
            headers[STEP_HEADER] = route.step
        for backend in targets(route, request.method, request.path, request.headers, body or b""):
            try:
                answer = await self._ask(backend, request, headers, body)
            except UNREACHABLE as error:
                self._failed(backend, request, error)  # it has seen nothing of the request
                continue
            except aiohttp.ClientError as error:
                self._failed(backend, request, error)
                return _refusal(
                    request, 503, f"Version {short(backend.version)} broke off before it answered; try again."
                )
            async with answer:
                counted = sum(map(len, self._conversations.values()))
                if is_question and answer.status < 300 and counted < MOST_CONVERSATIONS:
                    conversation = conversation_of(request.headers, body or b"")
                    self._conversations[backend.version].add(hash(conversation))
                return await self._relay(backend, request, answer)
        return _refusal(request, 503, "No version can be reached at the moment; try again.")

    async def _ask(
        self, backend: Backend, request: web.BaseRequest, headers: CIMultiDict[str], body: bytes | None
    ) -> aiohttp.ClientResponse:
        """Send the request on; returns when the headers of the answer are there."""
        data = body if body is not None else request.content if request.body_exists else None
        return await self._session.request(
            request.method,
            URL(backend.url + request.rel_url.raw_path_qs, encoded=True),
            headers=headers,
            data=data,
            allow_redirects=False,
        )

    async def _relay(
        self, backend: Backend, request: web.BaseRequest, answer: aiohttp.ClientResponse
    ) -> web.StreamResponse:
        """Pass the answer to the client chunk by chunk, as it comes. One who takes none for long is let go."""
        request["version"] = backend.version
        is_question = is_answer(request.method, request.path)
        if is_question and answer.status < 300:
            self._answers[backend.version] += 1
            self._answers_since_change[backend.version] += 1
        elif is_question and answer.status >= 500:
            self._errors[backend.version] += 1
        response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=_end_to_end(answer.headers))
        await response.prepare(request)
        transport = request.transport
        if transport is not None:
            transport.set_write_buffer_limits(0)  # so that to write is to wait until the client has room for it
        try:
            async for chunk in _chunks(answer):
                async with asyncio.timeout(READING_SECONDS):
                    await response.write(chunk)
            async with asyncio.timeout(READING_SECONDS):
                await response.write_eof()
        except BrokenOffError as error:
            self._failed(backend, request, error)
            if transport is not None:
                transport.close()  # without the last chunk, so that the client sees that the end is missing
        except TimeoutError:
            if transport is not None:
                transport.abort()
        return response

    def _failed(self, backend: Backend, request: web.BaseRequest, error: Exception) -> None:
        if is_answer(request.method, request.path):
            self._errors[backend.version] += 1
        fields = {"version": short(backend.version), "path": request.rel_url.raw_path, "error": str(error)}
        logger.warning("a version failed to answer", extra=fields)


class BrokenOffError(Exception):
    """A backend went away in the middle of its answer."""


async def _chunks(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    # An error of reading gets its own type here: one of writing means that the client left.
    try:
        async for chunk in answer.content.iter_any():
            yield chunk
    except aiohttp.ClientError as error:
        raise BrokenOffError(str(error)) from error


def _end_to_end(headers: Mapping[str, str]) -> CIMultiDict[str]:
    """The headers without those that are about one connection only."""
    kept = CIMultiDict(headers)
    named = {name.strip().lower() for name in kept.get("connection", "").split(",")}
    for name in (NOT_FORWARDED | named) & {name.lower() for name in kept}:
        del kept[name]
    return kept


def _refusal(request: web.BaseRequest, status: int, message: str) -> web.Response:
    """Our own answer, in the form in which clients of the path expect errors; they wait and try again on a 503."""
    request_id = secrets.token_hex(16)
    headers = {"x-request-id": request_id}
    if status == 503:  # `Refresh` is for browsers: the playground appears once a version serves
        headers |= {"Retry-After": str(RETRY_SECONDS), "Refresh": str(RETRY_SECONDS)}
    body = error_body(request.path, ApiError(status, message, reason="unavailable"), request_id)
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)


async def serve(port: int, route_file: Path) -> None:
    """Serve on loopback until SIGTERM or SIGINT, then finish the answers under way within DRAIN_SECONDS.

    Raises ServingError when the port can't be used.
    """
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    async with _session() as session:
        proxy = Proxy(RouteFile(route_file), session)
        server = web.Server(
            proxy.handle,
            handler_cancellation=True,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=WAITING_SECONDS,
        )
        # aiohttp waits this long for the requests under way, and then as long again for their connections.
        runner = web.ServerRunner(server, shutdown_timeout=DRAIN_SECONDS / 2)
        await runner.setup()
        try:
            await _listen(runner, port)
            await stop.wait()
        finally:
            await runner.cleanup()


def _session() -> aiohttp.ClientSession:
    """A client that adds nothing of its own, waits as long as a model thinks, and has no limit on connections."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_SECONDS),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    )


async def _listen(runner: web.ServerRunner, port: int) -> None:
    try:
        await web.TCPSite(runner, HOST, port).start()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        raise ServingError(f"Port {port} of {HOST} can't be used ({reason}); choose another one with --port.") from None
    logger.info("proxy listened", extra={"url": f"http://{HOST}:{port}"})


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tunegate.local.proxy", description="Forward along a route file.")
    parser.add_argument("--port", type=int, required=True, help=f"where to listen on {HOST}")
    parser.add_argument("--route", type=Path, required=True, metavar="FILE", help="the route; it may come later")
    arguments = parser.parse_args(argv)
    logs.configure()
    try:
        asyncio.run(serve(arguments.port, arguments.route))
    except ServingError as error:
        print(f"proxy: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
