"""`tunegate engine`: one vLLM for all versions of one base, and the port at which they ask to be on it.

vLLM is our child: it ends with us, and we with it, with an error, so that whoever supervises us starts both afresh.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from tunegate.api.digest import short
from tunegate.api.engine_names import shared_name
from tunegate.api.errors import ModelError
from tunegate.api.versions import Manifest
from tunegate.files import default_cache
from tunegate.models.materialize import ADAPTERS, check_folder
from tunegate.models.mount import read_mounted
from tunegate.serving.engines import remote, vllm
from tunegate.serving.engines.adapters import Adapters, Control
from tunegate.serving.engines.remote import Engine
from tunegate.store import Store

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SharedConfig:
    """Which base, where it lies, and where it is asked. parallel: over how many GPUs; None for all."""

    folder: Path
    store: Store
    host: str
    port: int
    control: socket.socket
    adapters: int
    rank: int
    parallel: int | None = None


def run(config: SharedConfig, on_ready: Callable[[], None] = lambda: None) -> None:
    """Run until SIGTERM or SIGINT. `on_ready` is called when vLLM has answered a first request.

    Raises ModelError or DigestError for what is no verified base in the folder, and ServingError when vLLM ended, hung,
    or answered with other weights.
    """
    base, _ = read_mounted(config.folder)
    if base.format in ADAPTERS:
        raise ModelError(
            f"{base.name} is an adapter; give the folder of its base, and it is loaded when it is asked for."
        )
    check_folder(config.folder)
    log = default_cache() / "logs" / f"engine-{short(base.digest)}-{config.port}.log"
    sharing = vllm.Sharing(config.host, config.port, config.adapters, config.rank)
    with vllm.start(config.folder, shared_name(base), log, config.parallel, sharing) as engine:
        asyncio.run(serve(config, base, engine, on_ready))


async def serve(config: SharedConfig, base: Manifest, engine: Engine, on_ready: Callable[[], None]) -> None:
    """Answer at the control port until a signal comes, or the engine ends: then it raises ServingError."""
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stopped.set)
    async with remote.session(url=engine.url) as session, contextlib.AsyncExitStack() as stack:
        adapters = Adapters(
            base, config.folder, engine.url, session, config.store, most=config.adapters, rank=config.rank
        )
        control = Control(adapters)
        runner = web.AppRunner(control.application(), access_log=None)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.SockSite(runner, config.control).start()

        async def watch() -> None:
            await engine.until_warm(session)
            control.is_warm = True
            logger.info("engine became warm", extra={"base": base.name, "engine": engine.url})
            on_ready()
            await engine.until_ended(session)

        tasks = [asyncio.ensure_future(each) for each in (watch(), control.watch(), stopped.wait())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
