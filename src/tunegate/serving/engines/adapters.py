"""The adapters of an engine that several versions share: each is there by a lease, under its digest's name.

Whoever serves a version renews its lease; what nobody renews leaves the engine. An engine that starts again has no
adapters, and gets them with the next renewals. A name never has two sets of weights: it is the digest of the bytes,
which are held to it before they are loaded, and looked at whenever their lease is renewed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from aiohttp import web
from tokenizers import Tokenizer

from tunegate.api.codec import Resource
from tunegate.api.digest import Digest
from tunegate.api.engine_names import shared_name
from tunegate.api.errors import (
    DigestError,
    ModelError,
    NotFoundError,
    ServingError,
    StoreError,
    TunegateError,
    UsageError,
)
from tunegate.api.pinned import Pinned, parse_storage_uri
from tunegate.api.versions import File, Manifest
from tunegate.files import default_cache, digest_of_file
from tunegate.models.materialize import required_base
from tunegate.models.prompt_tuning import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from tunegate.models.templates import TEMPLATE_FILE, template_of
from tunegate.models.weights import check_weights
from tunegate.store import Store

logger = logging.getLogger(__name__)
LEASE_SECONDS = 120.0  # a dozen renewals
# What vLLM would leave out, or refuse in words of its own.
_UNKNOWN_TO_VLLM = ("modules_to_save", "trainable_token_indices", "rank_pattern", "alpha_pattern", "use_dora")
_ALONE = "serve it without serving.shareBase"


class EngineFullError(ServingError):
    """There is no place for another adapter."""


class Wanted(Resource, frozen=True, kw_only=True):
    """The body of `PUT /adapters/NAME`: a version as `tunegate.api.pinned` writes it."""

    uri: str


class Wrong(Resource, frozen=True, kw_only=True):
    """The body of `POST /wrong`: which name answers with other weights, and how that was seen."""

    name: str
    reason: str


@dataclass
class _Lease:
    """An adapter that vLLM has. files: what it was loaded from, and state: how these lay on the disk then."""

    version: str
    folder: Path
    files: tuple[File, ...]
    renewed: float
    state: object

    def check(self) -> None:
        """Raise ServingError when a file is not what was loaded. Its bytes are read where the disk says it changed."""
        if self.state == (now := _state(self.folder, self.files)):
            return
        for file in self.files:
            path = self.folder / file.path
            if not path.is_file() or digest_of_file(path) != file.sha256:
                raise ServingError(
                    f"{path} was changed after {self.version} was loaded from it; the engine starts again and fetches "
                    "it anew. See who writes there."
                )
        self.state = now


class Adapters:
    """What the vLLM at `url`, with the base model in `folder`, has loaded. Asked from one event loop."""

    def __init__(
        self,
        base: Manifest,
        folder: Path,
        url: str,
        session: aiohttp.ClientSession,
        store: Store,
        *,
        most: int,
        rank: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._base, self._folder, self._url, self._session, self._store = base, folder, url, session, store
        self._most, self._rank, self._clock = most, rank, clock
        self._leases: dict[str, _Lease] = {}
        self._changing = asyncio.Lock()  # one after another: vLLM, too, loads so

    @property
    def names(self) -> list[str]:
        return sorted(self._leases)

    async def renew(self, name: str, uri: str) -> None:
        """Have the version that `uri` pins under `name`, its digest, for LEASE_SECONDS more.

        Raises EngineFullError; ModelError, UsageError or DigestError for what can't be an adapter here; StoreError; and
        ServingError when what it was loaded from is not what it was.
        """
        wanted = parse_storage_uri(uri)
        if Digest.parse(wanted.digest).hex != name:
            raise UsageError(f"{uri} is not the version {name}; the name of each is all 64 digits of its digest.")
        if name == shared_name(self._base):
            return
        if lease := self._leases.get(name):
            lease.renewed = self._clock()
            await asyncio.to_thread(lease.check)
            return
        async with self._changing:
            if name not in self._leases:
                self._leases[name] = await self._load(name, wanted)

    async def expire(self) -> None:
        """Unload what nobody has renewed for LEASE_SECONDS."""
        async with self._changing:
            for name, lease in [*self._leases.items()]:
                if self._clock() - lease.renewed > LEASE_SECONDS:
                    del self._leases[name]
                    status, text = await self._ask("unload_lora_adapter", {"lora_name": name})
                    said = {} if status == 200 else {"engine": text}
                    logger.info("nobody serves an adapter any more", extra={"version": lease.version, **said})

    async def _load(self, name: str, wanted: Pinned) -> _Lease:
        if len(self._leases) >= self._most:
            loaded = ", ".join(sorted(lease.version for lease in self._leases.values()))
            raise EngineFullError(
                f"There is no place for {wanted.name} on the engine of {self._base.name}: it has {loaded}; raise "
                f"--max-adapters (serving.sharedEngine.maxAdapters), which is {self._most}, or wait until one retires."
            )
        lease = await asyncio.to_thread(self._fetch, wanted)
        given = {"lora_name": name, "lora_path": str(lease.folder)}
        status, text = await self._ask("load_lora_adapter", given)
        if status != 200:
            raise ModelError(f"vLLM refuses {wanted.name}: {text[:300]}; {_ALONE}.")
        await asyncio.to_thread(lease.check)  # it read the files after we did
        logger.info("loaded an adapter", extra={"version": wanted.name, "adapters": len(self._leases) + 1})
        lease.renewed = self._clock()
        return lease

    def _fetch(self, wanted: Pinned) -> _Lease:
        """The adapter as it lies on this machine, held to its digest, and to what this engine can have."""
        manifest = self._store.manifest(wanted.name)
        check_version(manifest, self._base)
        target = default_cache() / "shared" / Digest.parse(wanted.digest).hex
        folder = self._store.fetch(manifest, target, digest=wanted.digest)
        check_weights(folder)
        check_adapter(folder, self._folder, self._rank, wanted.name)
        files = tuple(file for file in manifest.files if file.path in (ADAPTER_CONFIG, ADAPTER_WEIGHTS))
        return _Lease(wanted.name, folder, files, self._clock(), _state(folder, files))

    async def _ask(self, what: str, body: dict[str, Any]) -> tuple[int, str]:
        try:
            async with self._session.post(f"{self._url}/v1/{what}", json=body) as reply:
                return reply.status, " ".join((await reply.text()).split())
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ServingError(f"vLLM at {self._url} broke off {what} ({error}); see its log.") from None


def check_version(manifest: Manifest, base: Manifest) -> None:
    """Raise ModelError, which names both, unless the version is a LoRA on exactly this base."""
    if manifest.format != "lora-adapter":
        raise ModelError(
            f"{manifest.name} is {_KINDS[manifest.format]}, and adapters alone, made by LoRA, share the engine of "
            f"{base.name}; {_ALONE}."
        )
    needed = required_base(manifest)
    if needed.digest != base.digest:
        raise ModelError(
            f"{manifest.name} is on another base ({needed.digest}) than the engine has ({base.name}, {base.digest}); "
            "give it an engine of its own base, or tune that base."
        )


_KINDS = {"huggingface": "a whole model", "prompt-adapter": "a soft prompt", "lora-adapter": "an adapter"}


def check_adapter(folder: Path, base: Path, rank: int, name: str) -> None:
    """Raise ModelError for an adapter that vLLM can't have on the model in `base`, or would answer for otherwise than
    by itself: one chat template, and one set of tokens that end an answer, are everybody's there."""
    config = _read(folder / ADAPTER_CONFIG)
    found = int(config.get("r", 0))
    if found > rank:
        raise ModelError(
            f"{name} has rank {found}, and the engine takes {rank} at most; raise --max-rank "
            f"(serving.sharedEngine.maxRank), or {_ALONE}."
        )
    if given := next((key for key in _UNKNOWN_TO_VLLM if config.get(key)), None):
        raise ModelError(f"{name} has {given}, which vLLM can't do for one adapter of several; {_ALONE}.")
    if config.get("bias", "none") != "none":
        raise ModelError(f"{name} has biases, which vLLM can't do for one adapter of several; {_ALONE}.")
    if (folder / TEMPLATE_FILE).is_file() and template_of(folder) != template_of(base):
        raise ModelError(
            f"{name} has another chat template than its base, and an engine has one for all; publish the base with "
            f"that template, and tune that, or {_ALONE}."
        )
    if missing := sorted(_stops(folder) - _stops(base)):
        raise ModelError(
            f"{name} ends its answers with token {missing[0]}, at which its base does not end them; publish the base "
            f"with it as eos_token_id in generation_config.json, and tune that, or {_ALONE}."
        )


def _stops(folder: Path) -> set[int]:
    """The tokens that end an answer: those of generation_config.json, and the tokenizer's."""
    given = _read(folder / "generation_config.json").get("eos_token_id")
    stops: set[int | None] = {*given} if isinstance(given, list) else {given}
    word = _read(folder / "tokenizer_config.json").get("eos_token")
    if word and (folder / "tokenizer.json").is_file():
        text = word["content"] if isinstance(word, dict) else word
        stops.add(Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id(text))
    return {stop for stop in stops if stop is not None}


def _read(path: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any]) if path.is_file() else {}
    except msgspec.DecodeError as error:
        raise ModelError(f"{path} can't be read: {error}. Publish the model again under another name.") from None


def _state(folder: Path, files: tuple[File, ...]) -> object:
    """How the files lie on the disk: another after any write, or another file in their place."""
    found = []
    for file in files:
        try:
            about = (folder / file.path).stat()
        except OSError:
            return None
        found.append((about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns))
    return found


class Control:
    """The engine's own port: leases, and the word that it answers with other weights."""

    def __init__(self, adapters: Adapters) -> None:
        self.is_warm = False
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._adapters = adapters

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/healthz", self._health)
        app.router.add_put("/adapters/{name}", self._renew)
        app.router.add_post("/wrong", self._wrong)
        return app

    async def watch(self) -> None:
        """Let adapters leave. Raises ServingError when the engine has to start again."""
        while not self.over.done():
            await asyncio.wait([self.over], timeout=LEASE_SECONDS / 24)
            await self._adapters.expire()
        await self.over

    async def _health(self, _request: web.Request) -> web.Response:
        names = self._adapters.names
        return web.json_response({"ready": self.is_warm, "adapters": names}, status=200 if self.is_warm else 503)

    async def _renew(self, request: web.Request) -> web.Response:
        if not self.is_warm:
            return _refusal(503, "The engine is not warm yet; ask again.")
        try:
            wanted = msgspec.json.decode(await request.read(), type=Wanted)
            await self._adapters.renew(request.match_info["name"], wanted.uri)
        except EngineFullError as error:
            return _refusal(409, str(error))
        except ServingError as error:
            self._end(error)
            return _refusal(500, str(error))
        except StoreError as error:
            return _refusal(422 if isinstance(error, DigestError | NotFoundError) else 503, str(error))
        except msgspec.DecodeError as error:
            return _refusal(422, f"The body is not a lease: {error}.")
        except TunegateError as error:
            return _refusal(422, str(error))
        return web.json_response({})

    async def _wrong(self, request: web.Request) -> web.Response:
        try:
            told = msgspec.json.decode(await request.read(), type=Wrong)
        except msgspec.DecodeError as error:
            return _refusal(422, f"The body does not say what is wrong: {error}.")
        self._end(
            ServingError(f"The engine answered with other weights for {told.name}, so it starts again: {told.reason}")
        )
        return web.json_response({})

    def _end(self, error: ServingError) -> None:
        if not self.over.done():
            self.over.set_exception(error)


def _refusal(status: int, sentence: str) -> web.Response:
    return web.json_response({"error": sentence}, status=status)
