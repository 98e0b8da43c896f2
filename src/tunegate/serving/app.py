"""One process that serves one version: KServe's model server with our routes, in front of an engine.

It answers probes from the start and is ready when the engine is warm. When the engine ends, the server ends, with an
error: whoever supervises it starts both again, which is simpler than to repair one half.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import math
import signal
import socket
import sys
import warnings
from collections.abc import Callable, Coroutine, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import aiohttp
import uvicorn
import uvloop
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route
from starlette.types import ASGIApp

from tunegate.api import environment
from tunegate.api.errors import ServingError
from tunegate.api.traffic import OPENAI_PREFIX, STEP_HEADER
from tunegate.feedback import ResponseIds, VoteWriter
from tunegate.feedback.interactions import ReleaseParts
from tunegate.feedback.spool import InteractionLog, Spool, spool_of
from tunegate.files import default_cache, disk_errors_as
from tunegate.processes import is_loopback
from tunegate.serving.addresses import Hops
from tunegate.serving.auth import Admission, Keys
from tunegate.serving.config import ServeConfig
from tunegate.serving.connections import KEEP_ALIVE_SECONDS, Connection
from tunegate.serving.engines import remote
from tunegate.serving.engines.remote import Engine
from tunegate.serving.http import json_response
from tunegate.serving.listening import listen
from tunegate.serving.metrics import Metrics
from tunegate.serving.model_server import Served, kserve_app
from tunegate.serving.openapi import document
from tunegate.serving.parts import Parts, open_parts
from tunegate.serving.pipeline import Rules
from tunegate.serving.protocols import BY_PATH
from tunegate.serving.recording import Recorder
from tunegate.serving.routes.chat import Chat
from tunegate.serving.routes.feedback import FeedbackRoute
from tunegate.serving.routes.front import Front, ReadOnly
from tunegate.serving.routes.guard import Guard
from tunegate.serving.routes.models import Models
from tunegate.serving.routes.playground import playground
from tunegate.serving.tokens import Tokens, read_tokens

logger = logging.getLogger(__name__)
# How long the threads that log may hold up an answer; Python's own is ten times as long.
_SWITCH_SECONDS = 0.0005
_STORE_SECONDS = 10.0  # how long a store that is busy is waited for at the end
# What is reachable of KServe's application besides `/`: health, metrics and metadata. `/v1/models` is ours.
KSERVE_PATHS = (
    "/metrics",
    "/v2",
    "/v2/health/live",
    "/v2/health/ready",
    "/v2/models",
    "/v2/models/{name}/ready",
)


def run(config: ServeConfig, engine: Engine, on_ready: Callable[[str], None] = lambda url: None) -> None:
    """Serve until SIGTERM or SIGINT, then finish the answers under way. `on_ready` gets our URL when `engine` is warm.

    Raises ServingError when the port is in use, or the engine ended, and as `open_parts`.
    """
    warnings.filterwarnings("ignore", message="ORJSONResponse is deprecated")  # KServe's; once for each kind of probe
    host = f"[{config.host}]" if ":" in config.host else config.host
    if config.keys is None and not is_loopback(f"http://{host}"):
        logger.warning("everybody who reaches this server may ask it", extra={"remedy": "--keys FILE", "host": host})
    served = config.served
    parts = open_parts(served.release, served.folder, served.prompts, served.knowledge, engine.features)
    with contextlib.closing(listen(config.host, config.port)) as listener:
        url = f"http://{host}:{listener.getsockname()[1]}"
        uvloop.run(serve(config, engine, parts, listener, lambda: on_ready(url)))


async def serve(
    config: ServeConfig, engine: Engine, parts: Parts | None, listener: socket.socket, on_ready: Callable[[], None]
) -> None:
    """Answer on `listener` until a signal comes, or the engine ends: then it raises ServingError."""
    version, digest = config.served.version, config.served.version.digest
    admission = Admission(Keys(config.keys) if config.keys else None, config.capacity)
    served, metrics = Served(config.model), Metrics(digest, config.model)
    key, *others = config.feedback_keys
    ids = ResponseIds(key, config.model, *others)
    writer = VoteWriter(config.store, content=config.log_content)
    feedback = FeedbackRoute(ids, writer, metrics, _now, digest)
    recorder = _recorder(config, ids, parts)
    try:
        client = remote.session(config.engine.key, url=engine.url, certificate=config.engine.certificate)
        async with client as session:

            def ready() -> bool:
                return bool(served.ready)

            rules, hops = _rules(config, engine, parts), Hops(config.trusted_proxies)
            chat = Chat(
                digest, rules, engine.url, session, ids, metrics, ready, _now, parts=parts, recorder=recorder, hops=hops
            )
            models = Models(config.model, version, ready, parts.named if parts else {})
            routes = front(chat, models, feedback, kserve_app(served))
            app = with_cors(Guard(routes, admission, metrics), config.cors_origins)
            sys.setswitchinterval(_SWITCH_SECONDS)
            gc.freeze()  # what is loaded by now stays; collecting through it would hold up answers
            await _until_stopped(
                _Uvicorn(app, config.grace_seconds), listener, _watch(engine, session, served, on_ready)
            )
    finally:
        await asyncio.to_thread(engine.stop)
        # Answers stay on the disk for the next server, and no vote that waits was acknowledged.
        asyncio.get_running_loop().call_later(_STORE_SECONDS, config.store.hurry)
        # Beside each other: a busy store may keep one of them until the pod's time is over.
        await asyncio.gather(asyncio.to_thread(feedback.close), asyncio.to_thread(recorder.log.close))


def _rules(config: ServeConfig, engine: Engine, parts: Parts | None) -> Rules:
    """How requests become the engine's, by what the release and the engine say."""
    release = config.served.release
    return Rules(
        config.model,
        engine.model,
        release.system_prompt,
        release.generation,
        engine.limits,
        engine.features,
        read_tokens(config.served.folder) if config.served.folder else Tokens(),
        searches=bool(parts and parts.searches),
    )


def _recorder(config: ServeConfig, ids: ResponseIds, parts: Parts | None) -> Recorder:
    """What logs the answers of this server, by way of a folder of this machine."""
    version, release, named = config.served.version, config.served.release, parts.named if parts else {}
    folder = spool_of(default_cache(), config.store.uri, config.store.endpoint_url)
    with disk_errors_as(ServingError, folder, f"name a folder that can be with {environment.CACHE}."):
        spool = Spool(folder, config.store)
    return Recorder(
        InteractionLog(spool),
        ids,
        config.model,
        version.digest,
        ReleaseParts(prompts=named.get("prompts"), knowledge=named.get("knowledge"), tools=release.tools),
        parts,
        config.log_content,
    )


class _Uvicorn(uvicorn.Server):
    """Leaves signals to us: uvicorn's own handling would end the process by the signal instead of with status 0."""

    def __init__(self, app: ASGIApp, grace_seconds: float) -> None:
        config = uvicorn.Config(
            app,
            http=Connection,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            proxy_headers=False,  # nothing here asks who the client of a proxy is
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=math.floor(grace_seconds - remote.LAST_SECONDS),
        )
        super().__init__(config)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _watch(engine: Engine, session: aiohttp.ClientSession, served: Served, on_ready: Callable[[], None]) -> None:
    """Say when the engine is warm, and raise ServingError when it is gone; one that others start is waited for."""
    while True:
        try:
            await engine.until_warm(session)
            served.ready = True
            logger.info("engine became warm", extra={"model": served.name, "engine": engine.url})
            on_ready()
            await engine.until_ended(session)
        finally:
            served.ready = False


async def _until_stopped(server: _Uvicorn, listener: socket.socket, watching: Coroutine[Any, Any, None]) -> None:
    """Serve until a signal comes or `watching` fails; answers under way may end."""

    def stop() -> None:
        server.should_exit = True

    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop)
    watch = asyncio.ensure_future(watching)
    watch.add_done_callback(lambda _: stop())
    try:
        await server.serve(sockets=[listener])
    finally:
        watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watch


def front(chat: Chat, models: Models, feedback: FeedbackRoute, kserve: ASGIApp) -> Front:
    """All routes: ours, also under /openai, the playground, and what may be reached of KServe's application.

    KServe's would also unload the model, for good and for everybody who can reach it: hence a list of what is open, so
    that what a later KServe adds stays closed. Our answers don't pass through its middleware, which would cost time for
    every chunk.
    """
    routes: dict[str, tuple[str, Any]] = {
        **{path: ("POST", chat.speaking(protocol)) for path, protocol in BY_PATH.items()},
        "/v1/feedback": ("POST", feedback),
        "/v1/models": ("GET", models.listing),
        "/v1/models/{name:path}": ("GET", models.one),
    }
    ours = [
        Route(prefix + path, endpoint, methods=[method])
        for path, (method, endpoint) in routes.items()
        for prefix in (("", OPENAI_PREFIX) if path.startswith("/v1/") else ("",))
    ]
    read = [Route(path, ReadOnly(kserve), methods=["GET"]) for path in KSERVE_PATHS]
    described = json_response(document(models.name))
    read.append(Route("/v2/models/{name}", models.metadata, methods=["GET"]))
    read.append(Route("/openapi.json", described, methods=["GET"]))
    offered = (f"{method} {path.replace('{name:path}', 'NAME')}" for path, (method, _) in routes.items())
    return Front([*ours, *playground(ReadOnly(kserve)), *read], ", ".join(offered))


def with_cors(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """The same for pages of these origins, too: what a browser asks before it sends anything needs no key."""
    if not origins:
        return app
    shown = ("x-request-id", "x-tunegate-version", STEP_HEADER, "x-tunegate-notice", "retry-after")
    return CORSMiddleware(app, origins, allow_methods=("GET", "POST"), allow_headers=("*",), expose_headers=shown)


def _now() -> datetime:
    return datetime.now(UTC)
