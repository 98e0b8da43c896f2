"""Starts the engine that a configuration names.

Apart from the application, whose imports take seconds as the engine's start does: they go on side by side.
"""

from __future__ import annotations

import logging

from tunegate.api.digest import short
from tunegate.api.engine_names import NOBODY, absent_name, is_template, name_in_engine, shared_name
from tunegate.api.errors import ServingError
from tunegate.files import alone_with, default_cache, new_folder
from tunegate.serving.config import ServeConfig
from tunegate.serving.engines import transformers, vllm
from tunegate.serving.engines.leased import Leased
from tunegate.serving.engines.remote import Engine

logger = logging.getLogger(__name__)


def start_engine(config: ServeConfig) -> Engine:
    """The engine that runs already, or ours, started: stopped at the end of its `with`. It is not warm yet.

    Raises ServingError or ProcessError when it can't be started, ModelError when the weights can't be read or rounded.
    """
    engine, folder, version = config.engine, config.served.folder, config.served.version
    if engine.url is not None:
        url, name = engine.url.rstrip("/").removesuffix("/v1"), engine.model or config.model
        if engine.control:
            control, named = engine.control.rstrip("/"), shared_name(version)
            return Leased(url, named, absent=NOBODY, control=control, version=version, store=config.store)
        if engine.model and is_template(name):
            return Engine(url, name_in_engine(name, version), absent=absent_name(name, version))
        return Engine(url, name)
    if folder is None:
        raise ServingError("There are no weights to serve; give a folder, or the URL of an engine that has them.")
    if engine.quantization:
        from tunegate.models.quantize import quantize  # torch

        message = "these weights are not those that were evaluated; tunegate quantize makes a version that can be"
        logger.warning(message, extra={"quantization": engine.quantization})
        digest = short(version.digest)
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
