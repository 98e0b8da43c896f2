"""The stand-in engine and our routes in front of it, both on loopback in threads of their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from prometheus_client import CollectorRegistry
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tests.unit.serving.releases import build_index
from tests.unit.serving.standin import (
    DIGEST,
    KEY,
    MODEL,
    TOKENS,
    VERSION,
    Documents,
    Server,
    StandIn,
    in_thread,
    now,
    run_engine,
)
from tests.waiting import wait_for_async
from tunegate.feedback import ResponseIds, VoteWriter
from tunegate.feedback.interactions import ReleaseParts
from tunegate.feedback.spool import InteractionLog, Spool
from tunegate.processes import free_port
from tunegate.serving.app import front, with_cors
from tunegate.serving.auth import Admission
from tunegate.serving.engines import remote
from tunegate.serving.features import ANY, TRANSFORMERS
from tunegate.serving.limits import Embedded
from tunegate.serving.metrics import Metrics
from tunegate.serving.parts import Parts
from tunegate.serving.pipeline import Rules
from tunegate.serving.protocols.openai import CHAT
from tunegate.serving.recording import Recorder
from tunegate.serving.routes.chat import Chat
from tunegate.serving.routes.feedback import FeedbackRoute
from tunegate.serving.routes.guard import Guard
from tunegate.serving.routes.models import Models


@pytest.fixture
def engine() -> Iterator[StandIn]:
    with run_engine() as running:
        yield running


@pytest.fixture
def documents() -> Documents:
    return Documents()


@pytest.fixture
def limits() -> Embedded | None:
    """What the engine can't do; a module that is about the embedded one says so here."""
    return None


@pytest.fixture
def admission() -> Admission:
    """Who may ask, and how much; a module that is about keys says so here."""
    return Admission(None, 1024)


@pytest.fixture
def parts() -> Parts | None:
    """What the release has besides its weights; a module that is about prompts or knowledge says so here."""
    return None


@pytest.fixture
def origins() -> tuple[str, ...]:
    """Whose pages may ask from a browser; a module that is about them says so here."""
    return ()


@pytest.fixture(scope="session")
def shop_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shop's documents as an index, which knows what it does not know."""
    return build_index(tmp_path_factory.mktemp("shop") / "index")


@pytest.fixture
def server(
    engine: StandIn,
    documents: Documents,
    limits: Embedded | None,
    admission: Admission,
    parts: Parts | None,
    origins: tuple[str, ...],
    tmp_path: Path,
) -> Iterator[Server]:
    registry, state = CollectorRegistry(), SimpleNamespace(ready=True, later=timedelta(0))
    ids = ResponseIds(KEY, MODEL)
    metrics = Metrics(DIGEST, MODEL, registry)
    served = Server(f"http://127.0.0.1:{free_port()}", engine, registry, documents, ids, state)

    async def kserve(scope: Scope, receive: Receive, send: Send) -> None:
        status = 404 if scope["path"] != "/v2/health/ready" else 200 if state.ready else 503
        await Response("kserve", status)(scope, receive, send)

    @asynccontextmanager
    async def routes() -> AsyncIterator[Any]:
        features = TRANSFORMERS if limits else ANY
        async with remote.session() as session:
            searches = parts is not None and parts.searches
            rules = Rules(MODEL, engine.model, "Be brief.", {"max_tokens": 9}, limits, features, TOKENS, searches)
            release = ReleaseParts(knowledge=parts.named.get("knowledge") if parts else None)
            log = InteractionLog(Spool(tmp_path / "spool", documents))
            recorder = Recorder(log, ids, MODEL, DIGEST, release, parts)
            chat = Chat(
                DIGEST, rules, engine.url, session, ids, metrics, lambda: state.ready, now, CHAT, parts, recorder
            )
            feedback = FeedbackRoute(ids, VoteWriter(documents), metrics, lambda: now() + state.later, DIGEST)
            models = Models(MODEL, VERSION, lambda: state.ready, parts.named if parts else {})
            behind = front(chat, models, feedback, kserve)
            yield with_cors(Guard(behind, admission, metrics), origins)
            feedback.close()
            log.close()

    async def main(stop: asyncio.Event, started: Callable[[], None]) -> None:
        async with routes() as app:
            config = uvicorn.Config(
                app,
                port=int(served.url.rpartition(":")[2]),
                log_config=None,
                lifespan="off",
                ws="none",
                proxy_headers=False,
            )
            uvicorn_server = uvicorn.Server(config)
            serving = asyncio.ensure_future(uvicorn_server.serve())
            await wait_for_async(lambda: uvicorn_server.started, what="the server to listen")
            started()
            await stop.wait()
            uvicorn_server.should_exit = True
            await serving

    end = in_thread(main)
    yield served
    end()
