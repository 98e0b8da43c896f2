"""What the embedded engine is asked: how tokens are drawn, and no more of them than its cache holds.

Which fields it lacks, `features` says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from tunegate.serving.events import bad_request
from tunegate.serving.features import LENGTHS

# What a request may say of drawing, with the least and the most.
DRAWING: Mapping[str, tuple[float, float]] = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "top_k": (-1, 1 << 31),
    "min_p": (0, 1),
    "repetition_penalty": (0.01, 10),
    "seed": (-(1 << 63), (1 << 63) - 1),
}
WHOLE = frozenset({"top_k", "seed"})
_ONLY_DRAWN = frozenset({"temperature", "top_p", "top_k", "min_p", "seed"})  # means nothing for the likeliest token


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; temperature 0 always takes the likeliest."""

    temperature: float
    top_p: float = 1.0


@dataclass(frozen=True)
class Embedded:
    """What is fixed for the embedded engine: how tokens are drawn unasked, and room for so many in each request.

    count: the number of tokens in some texts, without what the chat template puts around them. generation: the model's
    generation configuration, on which a request's own sampling is laid.
    """

    sampling: Sampling
    context: int
    count: Callable[[Sequence[str]], int]
    generation: Mapping[str, Any] = field(default_factory=dict)


def fit(request: Mapping[str, Any], limits: Embedded, defaults: Mapping[str, float]) -> dict[str, Any]:
    """What the embedded engine is asked; `defaults` fill the length left open. Raises ApiError 400 with the field."""
    generation = _generation(request, limits)
    if "prompt" in request:
        texts = _prompt(request["prompt"])
    else:
        texts = [text for message in request["messages"] for text in _texts(message)]
    wanted = next((request[key] for key in reversed(LENGTHS) if key in request), None)
    length = _length(texts, wanted, int(defaults.get("max_tokens", 1024)), limits)
    asked = {key: request[key] for key in ("model", "messages", "prompt") if key in request}
    return asked | {"max_tokens": length, "generation_config": msgspec.json.encode(generation).decode()}


def _prompt(prompt: Any) -> list[str]:
    if not isinstance(prompt, str):
        raise bad_request("prompt must be one text; token ids and several texts are not served here.", "prompt")
    return [prompt]


def _generation(request: Mapping[str, Any], limits: Embedded) -> dict[str, Any]:
    """The generation configuration of one answer. Raises ApiError 400 with the field."""
    asked = {name: request[name] for name in DRAWING if name in request}
    for name, value in asked.items():
        if name in WHOLE and isinstance(value, float) and value.is_integer():  # to JSON 40.0 is a whole number, too
            value = asked[name] = int(value)
        least, most = DRAWING[name]
        kind = int if name in WHOLE else int | float
        if not isinstance(value, kind) or isinstance(value, bool) or not least <= value <= most:
            number = "whole number" if name in WHOLE else "number"
            raise bad_request(f"{name} must be a {number} from {least:g} to {most:g}.", name, "invalid_value")
    if asked.get("top_k", 0) < 0:
        asked["top_k"] = 0  # vLLM's word for no limit
    temperature = asked.get("temperature", limits.sampling.temperature)
    config = {**limits.generation, **asked, "do_sample": temperature > 0, "temperature": temperature}
    if temperature == 0:
        config = {name: value for name, value in config.items() if name not in _ONLY_DRAWN}
    return config


def _texts(message: Mapping[str, Any]) -> list[str]:
    content = message.get("content")
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    texts = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text"]
    if not texts or len(texts) != len(parts) or not all(isinstance(text, str) for text in texts):
        raise bad_request("The content of every message must be text; other parts are not served here.", "messages")
    return [message["role"], *texts]


def _length(texts: Sequence[str], wanted: Any, default: int, limits: Embedded) -> int:
    """How many tokens the answer may have. A request that outgrew the cache would end the engine for everybody."""
    if isinstance(wanted, float) and wanted.is_integer():
        wanted = int(wanted)
    if wanted is not None and (not isinstance(wanted, int) or isinstance(wanted, bool) or wanted < 1):
        raise bad_request("max_tokens must be a whole number of at least 1.", "max_tokens")
    around = 64 + 16 * len(texts)  # more than any chat template adds
    prompt = around + sum(len(text.encode()) for text in texts)  # no token is shorter than a byte
    if prompt + (wanted or default) > limits.context:
        prompt = around + limits.count(texts)
    room = limits.context - prompt
    if room < (wanted or 1):
        message = (
            f"The conversation (about {prompt} tokens) and max_tokens must fit {limits.context} tokens; shorten it."
        )
        raise bad_request(message, "messages", "context_length_exceeded")
    return wanted or min(default, room)
