"""The embedded engine: `transformers serve` with continuous batching.

A request that outgrows its cache would end it for everybody, so what it is asked is fitted in `limits`. What runs is
`program`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from tokenizers import Tokenizer

from tunegate.api.errors import ModelError, ServingError
from tunegate.api.versions import Release
from tunegate.models.prompt_tuning import has_lora, has_prefix, prompt_length
from tunegate.processes import Child, free_port
from tunegate.serving.engines import heartbeat
from tunegate.serving.engines.remote import ENVIRONMENT, Engine, Pulse
from tunegate.serving.features import TRANSFORMERS, TRANSFORMERS_ALONE
from tunegate.serving.limits import Embedded, Sampling

logger = logging.getLogger(__name__)
# The cache is sized for a small machine: without these it would take most of the free memory. 64 pages of 256 tokens
# are about 0.4 GB for SmolLM2-135M.
PAGE_TOKENS, PAGES, BATCH_TOKENS = 256, 64, 512
CONTEXT_TOKENS = PAGE_TOKENS * PAGES // 2
STEP_SECONDS = 600.0  # what BATCH_TOKENS of a large model may take a small CPU; until then it is not called hung
_SAMPLING_DEFAULTS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens")


def start(folder: Path, release: Release, log: Path) -> Engine:
    """Start the embedded engine on the model in `folder`, on a loopback port. It is not warm yet.

    Raises ServingError when the release can't be served so, ProcessError when the program can't be started.
    """
    limits = read_limits(folder, release)
    port = free_port()
    argv = [sys.executable, "-m", "tunegate.serving.engines.program", str(folder), str(port)]
    log.unlink(missing_ok=True)
    if has_lora(folder):
        logger.info("the adapter lies beside its base, whose memory servers share", extra={"folder": str(folder)})
    child = Child.start("the engine", argv, log=log, env=ENVIRONMENT)
    features = TRANSFORMERS_ALONE if has_prefix(folder) else TRANSFORMERS
    pulse = Pulse(heartbeat.PATH, heartbeat.read_json)
    return Engine(f"http://127.0.0.1:{port}", str(folder), child, limits, features, pulse, STEP_SECONDS)


def read_limits(folder: Path, release: Release) -> Embedded:
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
    return Embedded(sampling, longest - prompt_length(folder), count, generation)


def generation_config(folder: Path, release: Release) -> dict[str, Any]:
    """The model's generation_config.json under the release's defaults: how answers are drawn where a client asks for
    nothing else."""
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
        config = {key: value for key, value in config.items() if key not in ("temperature", "top_p", "top_k", "min_p")}
    return config


def _tokenizer(folder: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # the library raises bare Exception
        raise ModelError(
            f"{folder / 'tokenizer.json'} can't be read: {error}. Publish the model again under another name."
        ) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError) as error:
        raise ModelError(f"{path} can't be read: {error}. Publish the model again under another name.") from None
