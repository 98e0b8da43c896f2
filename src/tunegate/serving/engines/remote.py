"""An engine reached over HTTP: one that already runs somewhere, or our child on loopback.

It is warm when it has answered a first request, and watched from then on if it is ours.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import msgspec

from tunegate.api import environment
from tunegate.api.errors import ServingError
from tunegate.certificates import Pinned
from tunegate.processes import Child, is_loopback
from tunegate.serving.engines.heartbeat import Progress
from tunegate.serving.features import ANY, EngineFeatures
from tunegate.serving.limits import Embedded

START_SECONDS = 600.0
STALL_SECONDS = 120.0  # more than a step on a GPU ever takes: a busy engine is not ended
LAST_SECONDS = 2  # of a server's grace: for ending its engine, when all answers are given
_WATCH_SECONDS = 0.25
_HEALTH_EVERY = 8  # watches
# `transformers serve` and vLLM drop a connection after 5 idle seconds; one that we reuse must never be that old.
_IDLE_SECONDS = 2.0
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=600)
# Threads that spin while they wait ruin each other where engines share cores: 0.2 tokens/s instead of 10 on a busy one.
# It is stopped when its last answer is given, so it gets no time of the server's own.
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE", environment.GRACE: str(LAST_SECONDS)}


@dataclass(frozen=True)
class Pulse:
    """Where an engine says how far it is, and how that is read."""

    path: str
    read: Callable[[bytes], Progress]


@dataclass(frozen=True)
class Engine:
    """Where the engine is and what it calls the model. `child` is None for an engine that is not ours, `limits` for
    one that has none that we know. `features`: which fields of a request it honors. `pulse`: how it shows that it
    works; after `stall_seconds` without a step, while it has requests, it counts as hung. absent: a name that it must
    not answer for, where it has each version under a name of its own.
    """

    url: str
    model: str
    child: Child | None = None
    limits: Embedded | None = None
    features: EngineFeatures = ANY
    pulse: Pulse | None = None
    stall_seconds: float = STALL_SECONDS
    absent: str = ""

    async def until_warm(self, session: aiohttp.ClientSession) -> None:
        """Wait until the engine has answered a first request. Raises ServingError when it can't."""
        deadline = asyncio.get_running_loop().time() + START_SECONDS
        while not await self._healthy(session):
            self._check_child()
            if asyncio.get_running_loop().time() > deadline:
                raise ServingError(f"The engine at {self.url} did not come up within {START_SECONDS:.0f} s; start it.")
            await asyncio.sleep(_WATCH_SECONDS)
        status, text = await self._first_answer(session, self.model)
        if status != 200:
            remedy = f"check --engine-model and {environment.ENGINE_KEY}" if self.child is None else self._tail()
            said = f"status {status}: {text[:300]}; {remedy}"
            raise ServingError(f"The engine at {self.url} refused to answer for {self.model!r}, with {said}.")
        if self.absent and (await self._first_answer(session, self.absent))[0] == 200:
            raise ServingError(
                f"The engine at {self.url} answers for {self.absent!r} as for {self.model!r}, so it does not tell "
                "versions apart, and a canary would compare a model with itself; have it refuse names that it does not "
                "serve."
            )

    async def _first_answer(self, session: aiohttp.ClientSession, model: str) -> tuple[int, str]:
        """The status and the text of an answer of one token. Raises ServingError where it breaks off."""
        body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
        try:
            async with session.post(f"{self.url}/v1/chat/completions", json=body) as reply:
                return reply.status, " ".join((await reply.text()).split())
        except (aiohttp.ClientError, TimeoutError) as error:
            self._check_child()
            raise ServingError(f"The engine at {self.url} broke off its first answer ({error}); see its log.") from None

    async def until_ended(self, session: aiohttp.ClientSession) -> None:
        """Watch our own engine; raises ServingError when it is gone, or does nothing for what it is asked: then it is
        stopped, which ends the answers that wait for it. One that is not ours is watched by its owner.

        Returns where it is worth waiting until it is warm once more, which ours never is."""
        if self.child is None:
            await asyncio.Event().wait()
        now = asyncio.get_running_loop().time
        moved, progress = now(), None
        for watch in itertools.count():
            self._check_child()
            if watch % _HEALTH_EVERY == 0:
                if await self._status(session) == 503:
                    raise ServingError(f"The engine says that it broke down: {self._tail()}")
                latest = await self._progress(session)
                if latest is not None and latest.moved_since(progress):
                    moved, progress = now(), latest
                if now() - moved > self.stall_seconds:
                    await asyncio.to_thread(self.stop)
                    still = f"The engine did nothing for {self.stall_seconds:g} s, with requests to answer"
                    raise ServingError(f"{still}: {self._tail()}")
            await asyncio.sleep(_WATCH_SECONDS)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the engine if it is ours; returns when it is gone."""
        if self.child is not None:
            self.child.stop()

    async def _healthy(self, session: aiohttp.ClientSession) -> bool:
        status = await self._status(session)
        return status is not None and status < 500

    async def _status(self, session: aiohttp.ClientSession) -> int | None:
        try:
            async with session.get(f"{self.url}/health", timeout=aiohttp.ClientTimeout(total=2)) as reply:
                return reply.status
        except (aiohttp.ClientError, TimeoutError):
            return None  # busy or not up; whether it ended, the child says

    async def _progress(self, session: aiohttp.ClientSession) -> Progress | None:
        """None while it does not answer."""
        if self.pulse is None:
            return Progress(0, 0)
        try:
            async with session.get(self.url + self.pulse.path, timeout=aiohttp.ClientTimeout(total=2)) as reply:
                return self.pulse.read(await reply.read())
        except (aiohttp.ClientError, TimeoutError, msgspec.DecodeError):
            return None

    def _check_child(self) -> None:
        if self.child is not None and self.child.exit_code is not None:
            raise ServingError(f"The engine ended with status {self.child.exit_code}: {self._tail()}")

    def _tail(self) -> str:
        return f"{self.child.tail()} (log: {self.child.log})" if self.child is not None else "see its log"


def session(
    key: str | None = None, *, url: str = "http://127.0.0.1", certificate: Path | None = None
) -> aiohttp.ClientSession:
    """The HTTP client for an engine: as many connections as there are requests, no limit on an answer's length.

    key: the API key that the engine asks for. url: where it is; the environment's proxy is for those elsewhere alone.
    certificate: the file with the one that it has, where no CA that is trusted anyway vouches for it.
    """
    headers = {"authorization": f"Bearer {key}"} if key else {}
    trusted = Pinned.to(certificate) if certificate else True
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_SECONDS, ssl=trusted)
    return aiohttp.ClientSession(
        connector=connector,
        timeout=_TIMEOUT,
        auto_decompress=False,
        headers=headers,
        trust_env=not is_loopback(url),
        cookie_jar=aiohttp.DummyCookieJar(),  # one client's would go to the engine with another's request
    )
