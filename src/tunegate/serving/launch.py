"""Starts the engine that a configuration names.

Apart from the application, whose imports take seconds as the engine's start does: they go on side by side.
"""

from __future__ import annotations

import logging

from tunegate.api.digest import short
from tunegate.api.errors import ServingError
from tunegate.files import alone_with, default_cache, new_folder
from tunegate.serving.config import ServeConfig
from tunegate.serving.engines import transformers, vllm
from tunegate.serving.engines.remote import Engine

logger = logging.getLogger(__name__)


def start_engine(config: ServeConfig) -> Engine:
    """The engine that runs already, or ours, started: stopped at the end of its `with`. It is not warm yet.

    Raises ServingError or ProcessError when it can't be started, ModelError when the weights can't be read or rounded.
    """
    engine, folder = config.engine, config.served.folder
    if engine.url is not None:
        return Engine(engine.url.rstrip("/").removesuffix("/v1"), engine.model or config.model)
    if folder is None:
        raise ServingError("There are no weights to serve; give a folder, or the URL of an engine that has them.")
    if engine.quantization:
        from tunegate.models.quantize import quantize  # torch

        message = "these weights are not those that were evaluated; tunegate quantize makes a version that can be"
        logger.warning(message, extra={"quantization": engine.quantization})
        digest = short(config.served.version.digest)
        # made once and kept: the same folder always gives the same bytes
        target = default_cache() / "quantized" / f"{digest}-{engine.quantization}"
        with alone_with(target):
            if not target.exists():
                with new_folder(target) as partial:
                    quantize(folder, partial, engine.quantization)
        folder = target
    if engine.program == "vllm":
        return vllm.start(folder, config.model, config.engine_log, engine.parallel)
    return transformers.start(folder, config.served.release, config.engine_log)
