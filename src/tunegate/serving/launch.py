"""Starts the engine that a configuration names.

Apart from the application, whose imports take seconds as the engine's start does: they go on side by side.
"""

from __future__ import annotations

from tunegate.api.errors import ServingError
from tunegate.serving.config import ServeConfig
from tunegate.serving.engines import transformers, vllm
from tunegate.serving.engines.remote import Engine


def start_engine(config: ServeConfig) -> Engine:
    """The engine that runs already, or ours, started: stopped at the end of its `with`. It is not warm yet.

    Raises ServingError or ProcessError when it can't be started, ModelError when the weights can't be read.
    """
    engine, folder = config.engine, config.served.folder
    if engine.url is not None:
        return Engine(engine.url.rstrip("/"), engine.model or config.model)
    if folder is None:
        raise ServingError("There are no weights to serve; give a folder, or the URL of an engine that has them.")
    if engine.program == "vllm":
        return vllm.start(folder, config.model, config.engine_log)
    return transformers.start(folder, config.served.release, config.engine_log)
