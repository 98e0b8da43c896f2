"""vLLM's HTTP API as far as an engine with adapters needs it: what it answers depends on the file that it loaded.

Run as a program it is started as vLLM is.
"""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web


def fingerprint(adapter: Path) -> str:
    return hashlib.sha256((adapter / "adapter_model.safetensors").read_bytes()).hexdigest()


def logprobs(weights: str, tokens: Sequence[int]) -> list[float]:
    """Of each token after those before it, from the second one on: other weights find every one otherwise likely."""
    texts = [f"{weights} {list(tokens[: at + 1])}" for at in range(1, len(tokens))]
    return [-int(hashlib.sha256(text.encode()).hexdigest()[:4], 16) / 4096 for text in texts]


@dataclass
class Vllm:
    """`base` is the name of the model that it has from the start; `refuses` is what it says to an adapter. logprobs:
    whether it tells any."""

    base: str
    loaded: dict[str, str] = field(default_factory=dict)
    loads: list[str] = field(default_factory=list)
    refuses: str = ""
    logprobs: bool = True

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/health", self.health)
        app.router.add_post("/v1/load_lora_adapter", self.load)
        app.router.add_post("/v1/unload_lora_adapter", self.unload)
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_post("/v1/completions", self.complete)
        return app

    async def health(self, _request: web.Request) -> web.Response:
        return web.Response()

    async def load(self, request: web.Request) -> web.Response:
        body = await request.json()
        name = body["lora_name"]
        if self.refuses or name in self.loaded:
            return web.json_response({"error": {"message": self.refuses or f"{name} is loaded already"}}, status=400)
        self.loads.append(name)
        self.loaded[name] = fingerprint(Path(body["lora_path"]))
        return web.Response(text=f"Success: LoRA adapter '{name}' added successfully.")

    async def unload(self, request: web.Request) -> web.Response:
        name = (await request.json())["lora_name"]
        status = 200 if self.loaded.pop(name, None) else 404
        return web.Response(status=status)

    async def chat(self, request: web.Request) -> web.Response:
        body = await request.json()
        weights = self._weights(body)
        if weights is None:
            return web.json_response({"error": {"message": "The model does not exist."}}, status=404)
        message = {"role": "assistant", "content": weights}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        return web.json_response(
            {
                "id": "chatcmpl-1",
                "object": "chat.completion",
                "created": 1,
                "model": body["model"],
                "choices": [choice],
                "usage": usage,
            }
        )

    async def complete(self, request: web.Request) -> web.Response:
        body = await request.json()
        weights = self._weights(body)
        if weights is None:
            return web.json_response({"error": {"message": "The model does not exist."}}, status=404)
        choices = []
        for index, tokens in enumerate(body["prompt"]):
            if not self.logprobs:
                tokens = []
            told = [{str(t): {"logprob": p}} for t, p in zip(tokens[1:], logprobs(weights, tokens), strict=True)]
            choices.append({"index": index, "text": "", "prompt_logprobs": [None, *told]})
        return web.json_response({"choices": choices})

    def _weights(self, body: dict[str, Any]) -> str | None:
        return "base" if body["model"] == self.base else self.loaded.get(body["model"])


if __name__ == "__main__":
    words = argparse.ArgumentParser()
    words.add_argument("-m", choices=["vllm.entrypoints.openai.api_server"])
    for option in ("--model", "--served-model-name", "--host", "--port", "--max-loras", "--max-lora-rank"):
        words.add_argument(option, required=True)
    words.add_argument("--enable-lora", action="store_true", required=True)
    asked, _ = words.parse_known_args()
    assert os.environ["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"
    web.run_app(Vllm(asked.served_model_name).application(), host=asked.host, port=int(asked.port))
