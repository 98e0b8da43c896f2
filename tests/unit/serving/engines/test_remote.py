"""An engine that hangs is told from one that is busy."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from tunegate.api.errors import ServingError
from tunegate.processes import Child, free_port
from tunegate.serving.engines import remote
from tunegate.serving.engines.heartbeat import Progress, read_vllm
from tunegate.serving.engines.remote import Engine, Pulse

VLLM = b"""# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="shop"} 2.0
vllm:num_requests_waiting{engine="0",model_name="shop"} 1.0
vllm:prompt_tokens_total{engine="0",model_name="shop"} 40.0
vllm:generation_tokens_total{engine="0",model_name="shop"} 7.0
vllm:generation_tokens_created{engine="0",model_name="shop"} 1.7e+09
"""


def test_vllms_metrics_are_read_as_steps_and_requests() -> None:
    assert read_vllm(VLLM) == Progress(steps=47, requests=3)


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Child]:
    argv = [sys.executable, "-c", "import signal; signal.pause()"]
    with Child.start("the engine", argv, log=tmp_path / "log") as running:
        yield running


def watch(monkeypatch: pytest.MonkeyPatch, child: Child, progress: Callable[[int], Progress | None]) -> None:
    """Watch an engine that says `progress` to each question until that is None, or it counts as hung."""
    monkeypatch.setattr(remote, "_WATCH_SECONDS", 0.01)
    asked = 0
    enough = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        if (found := progress(asked)) is None:
            enough.set()
            return web.Response(status=200, text="1 0")
        return web.Response(text=f"{found.steps} {found.requests}")

    async def healthy(request: web.Request) -> web.Response:
        return web.Response()

    def read(body: bytes) -> Progress:
        steps, requests = map(float, body.split())
        return Progress(steps, requests)

    async def main() -> None:
        app = web.Application()
        app.router.add_get("/progress", answer)
        app.router.add_get("/health", healthy)
        runner = web.AppRunner(app)
        await runner.setup()
        port = free_port()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        pulse = Pulse("/progress", read)
        engine = Engine(f"http://127.0.0.1:{port}", "m", child, pulse=pulse, stall_seconds=0.4)
        async with remote.session() as session:
            watching = asyncio.ensure_future(engine.until_ended(session))
            waiting = asyncio.ensure_future(enough.wait())
            try:
                await asyncio.wait({watching, waiting}, return_when=asyncio.FIRST_COMPLETED)
                if watching.done():
                    await watching
            finally:
                watching.cancel()
                waiting.cancel()
                await runner.cleanup()

    asyncio.run(main())


def test_an_engine_that_does_nothing_for_its_requests_is_stopped(monkeypatch: pytest.MonkeyPatch, child: Child) -> None:
    with pytest.raises(ServingError, match=r"did nothing for 0\.4 s"):
        watch(monkeypatch, child, lambda asked: Progress(5, 1))

    assert child.exit_code is not None


@pytest.mark.parametrize("requests", [0, 3], ids=["idle", "busy"])
def test_an_engine_that_is_busy_or_idle_runs_on(monkeypatch: pytest.MonkeyPatch, child: Child, requests: int) -> None:
    def progress(asked: int) -> Progress | None:
        return Progress(asked if requests else 5, requests) if asked < 20 else None

    watch(monkeypatch, child, progress)

    assert child.exit_code is None


@pytest.mark.parametrize(("host", "reached"), [("llm.invalid", "proxy"), ("127.0.0.1", "engine")])
def test_the_environments_proxy_is_for_engines_elsewhere_alone(
    monkeypatch: pytest.MonkeyPatch, host: str, reached: str
) -> None:
    async def main() -> str:
        async def answer(request: web.Request) -> web.Response:
            return web.Response(text="engine" if request.raw_path == "/health" else "proxy")  # which gets the whole URL

        app = web.Application()
        app.router.add_get("/{path:.*}", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port := free_port())
        await site.start()
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        url = f"http://{host}:{port}"
        try:
            async with remote.session(url=url) as session, session.get(f"{url}/health") as reply:
                return await reply.text()
        finally:
            await runner.cleanup()

    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert asyncio.run(main()) == reached


def make_certificate(folder: Path, name: str) -> Path:
    """One as KServe gives an engine: it signs itself, is no CA, and has its key beside it."""
    file = folder / f"{name}.crt"
    made = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/O=Kserve Self Signed"]
    made += ["-config", "/dev/null", "-keyout", str(file.with_suffix(".key")), "-out", str(file)]
    for extension in (
        "subjectAltName=IP:127.0.0.1",
        "keyUsage=critical,digitalSignature,keyEncipherment",
        "extendedKeyUsage=serverAuth",
        "basicConstraints=critical,CA:FALSE",
    ):
        made += ["-addext", extension]
    subprocess.run(["openssl", *made], check=True, capture_output=True)
    return file


def test_an_engine_is_known_by_its_certificate_also_when_it_gets_another(tmp_path: Path) -> None:
    first, second = (make_certificate(tmp_path, name) for name in ("first", "second"))
    (pinned := tmp_path / "pinned.crt").write_bytes(first.read_bytes())

    async def ask(url: str, certificate: Path | None) -> str:
        try:
            async with remote.session(url=url, certificate=certificate) as session, session.get(url) as reply:
                return await reply.text()
        except aiohttp.ClientConnectorCertificateError:
            return "refused"

    async def main() -> None:
        async def answer(request: web.Request) -> web.Response:
            return web.Response(text="engine", headers={"connection": "close"})

        app = web.Application()
        app.router.add_get("/{path:.*}", answer)
        await (runner := web.AppRunner(app)).setup()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(first, first.with_suffix(".key"))
        await web.TCPSite(runner, "127.0.0.1", port := free_port(), ssl_context=context).start()
        url = f"https://127.0.0.1:{port}/health"
        try:
            assert await ask(url, None) == "refused", "no CA vouches for it"
            assert await ask(url, pinned) == "engine"
            assert await ask(f"https://localhost:{port}/", pinned) == "refused", "it is for another name"
            async with remote.session(url=url, certificate=pinned) as session:
                context.load_cert_chain(second, second.with_suffix(".key"))
                with pytest.raises(aiohttp.ClientConnectorCertificateError):
                    await session.get(url)
                pinned.write_bytes(second.read_bytes())
                async with session.get(url) as reply:
                    assert await reply.text() == "engine"
                context.load_cert_chain(first, first.with_suffix(".key"))
                async with session.get(url) as reply:
                    assert await reply.text() == "engine", "what it had before is still its own"
        finally:
            await runner.cleanup()

    asyncio.run(main())
