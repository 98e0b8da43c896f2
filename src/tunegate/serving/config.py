"""What one server serves, where, and through which engine: checked once, then frozen."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tunegate.api import environment
from tunegate.api.digest import short
from tunegate.api.engine_names import check_template, is_template
from tunegate.api.errors import UsageError
from tunegate.feedback import parse_keys
from tunegate.files import default_cache
from tunegate.processes import GRACE_SECONDS
from tunegate.serving.addresses import LOOPBACK, Hops
from tunegate.serving.auth import read_keys
from tunegate.serving.version import ServedVersion, from_store, mounted
from tunegate.store import Store

_ORIGIN = re.compile(r"\*|https?://[^/,\s]+")


@dataclass(frozen=True)
class EngineConfig:
    """The program that generates text: one that we start, or one that already runs at `url`.

    model: what the engine at `url` calls the model, or a template of what it calls each version; by default the name
    clients use. parallel: over how many GPUs vLLM spreads the model; None for all. quantization: what the weights are
    rounded to before they are served. key: what the engine at `url` asks for. certificate: a file with the one that it
    has, where no CA that is trusted anyway vouches for it. control: where it gives leases, if versions share it.
    share_base: whether the embedded one computes a LoRA beside the base's weights, which all who do so hold once.
    Raises UsageError that names the flag.
    """

    program: Literal["transformers", "vllm"] = "transformers"
    url: str | None = None
    model: str | None = None
    parallel: int | None = None
    quantization: Literal["int8", "int4", "fp8"] | None = None
    key: str | None = field(default=None, repr=False)
    certificate: Path | None = None
    control: str | None = None
    share_base: bool = False

    def __post_init__(self) -> None:
        if self.control and not self.url:
            raise UsageError("--engine-control is where the engine at --engine-url gives leases; give both.")
        if self.control and self.model:
            raise UsageError(
                "An engine with --engine-control calls each version by its digest; leave out --engine-model."
            )
        if self.model and not self.url:
            raise UsageError("--engine-model says what the engine at --engine-url calls the model; give both.")
        if self.model and is_template(self.model):
            try:
                check_template(self.model)
            except ValueError as error:
                raise UsageError(f"--engine-model can't be used: {error}.") from None
        for option, url in (("--engine-url", self.url), ("--engine-control", self.control)):
            if url and not url.startswith(("http://", "https://")):
                raise UsageError(f"{option} {url} is not a URL; write it as http://HOST:PORT.")
        if self.parallel and self.program != "vllm":
            raise UsageError("--tensor-parallel-size is for --engine vllm; the embedded engine uses one device.")
        if self.certificate and not self.certificate.is_file():
            raise UsageError(
                f"{environment.ENGINE_CERTIFICATE} names {self.certificate}, which is no file; put the certificate of "
                "the engine there."
            )
        if self.quantization and self.url:
            raise UsageError("--quantization is for an engine started here, not one at --engine-url; give one of them.")
        if self.share_base and (self.url or self.program != "transformers"):
            raise UsageError(
                "--share-base is for the embedded engine; for vLLM run `tunegate engine`, and give its ports as "
                "--engine-url and --engine-control."
            )
        if self.share_base and self.quantization:
            raise UsageError("--quantization makes weights that nobody shares; leave it or --share-base out.")
        if self.url and self.program != "transformers":
            raise UsageError("--engine starts an engine, and --engine-url names one that runs; give one of them.")

    @property
    def capacity(self) -> int:
        """How many requests may be under way unless somebody says otherwise: more would wait too long on a CPU."""
        return 1024 if self.program == "vllm" or self.url else 128

    @property
    def whole_models_only(self) -> bool:
        """Whether it can't load an adapter on its base model."""
        return self.program != "transformers" or self.url is not None


@dataclass(frozen=True)
class ServeConfig:
    """What to serve and where.

    model: the name clients ask for, which response ids are bound to.
    grace_seconds: how long after SIGTERM whoever supervises the server kills it; answers under way have it but for 2 s.
    keys: the file with the API keys that may ask; None lets everybody ask.
    capacity: how many requests may be under way; further ones are told to come back.
    log_content: whether the texts of answers and of feedback are logged, redacted, or numbers alone.
    cors_origins: whose pages may ask from a browser.
    trusted_proxies: networks whose word on where a request comes from is taken.
    """

    served: ServedVersion
    engine: EngineConfig
    model: str
    feedback_keys: tuple[bytes, ...]
    store: Store
    host: str = "127.0.0.1"
    port: int = 8080
    grace_seconds: float = GRACE_SECONDS
    keys: Path | None = None
    capacity: int = 1024
    log_content: bool = True
    cors_origins: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = LOOPBACK

    @property
    def engine_log(self) -> Path:
        return default_cache() / "logs" / f"engine-{short(self.served.version.digest)}-{self.port}.log"


def serve_config(
    store_uri: str,
    version: str | Path,
    engine: EngineConfig,
    *,
    endpoint_url: str | None,
    model: str | None,
    feedback_key: str | None,
    host: str,
    port: int,
    grace_seconds: float,
    keys: Path | None,
    capacity: int | None,
    log_content: bool = True,
    cors_origins: tuple[str, ...] = (),
    trusted_proxies: tuple[str, ...] = (),
) -> ServeConfig:
    """Find the version by its name in the store, or in the folder that `tunegate initialize` left, and fetch it.

    feedback_key: as `tunegate.feedback.parse_keys` reads it. Of the store, nothing is asked for a folder.
    Raises UsageError, NotFoundError, StoreError or ModelError.
    """
    if wrong := next((origin for origin in cors_origins if not _ORIGIN.fullmatch(origin)), None):
        raise UsageError(f"--cors-origin {wrong} is not an origin; write it as https://HOST or https://HOST:PORT.")
    Hops(trusted_proxies)
    whole = engine.whole_models_only
    if isinstance(version, Path):
        store = Store.at(store_uri, endpoint_url=endpoint_url)
        served = mounted(store, version, whole=whole, fetch=engine.url is None, share_base=engine.share_base)
    else:
        store = Store.open(store_uri, endpoint_url=endpoint_url)
        served = from_store(store, version, whole=whole, fetch=engine.url is None, share_base=engine.share_base)
    if keys is not None:
        read_keys(keys)  # before an engine is started for nothing
    name, known = model or served.version.model, parse_keys(feedback_key)
    most = capacity or engine.capacity
    return ServeConfig(
        served,
        engine,
        name,
        known,
        store,
        host,
        port,
        grace_seconds,
        keys,
        most,
        log_content,
        cors_origins,
        trusted_proxies or LOOPBACK,
    )
