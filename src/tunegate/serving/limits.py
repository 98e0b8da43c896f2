"""What the embedded engine can't do: sampling of a request's own, more tokens than its cache holds.

Which fields it lacks, `features` says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunegate.serving.events import bad_request
from tunegate.serving.features import LENGTHS

_TAKE_OUT = "leave it out, or serve the version with --engine-url on an engine that can"


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; temperature 0 always takes the likeliest."""

    temperature: float
    top_p: float = 1.0


@dataclass(frozen=True)
class Embedded:
    """The limits of the embedded engine: one sampling for all requests, and room for so many tokens in each.

    count: the number of tokens in some texts, without what the chat template puts around them.
    """

    sampling: Sampling
    context: int
    count: Callable[[Sequence[str]], int]


def fit(request: Mapping[str, Any], limits: Embedded, defaults: Mapping[str, float]) -> dict[str, Any]:
    """What the embedded engine is asked; `defaults` fill the length left open. Raises ApiError 400 with the field."""
    for key, fixed in (("temperature", limits.sampling.temperature), ("top_p", limits.sampling.top_p)):
        value = request.get(key, fixed)
        irrelevant = key == "top_p" and limits.sampling.temperature == 0
        if value != fixed and not irrelevant:
            message = f"The engine of this server draws all answers with the release's {key} of {fixed:g}; {_TAKE_OUT}."
            raise bad_request(message, key, "unsupported_value")
    texts = [text for message in request["messages"] for text in _texts(message)]
    wanted = next((request[key] for key in reversed(LENGTHS) if key in request), None)
    length = _length(texts, wanted, int(defaults.get("max_tokens", 1024)), limits)
    return {
        "model": request["model"],
        "messages": request["messages"],
        "max_tokens": length,
    }


def _texts(message: Mapping[str, Any]) -> list[str]:
    if not isinstance(message.get("role"), str):
        raise bad_request("Every message needs a role, such as 'user'.", "messages")
    content = message.get("content")
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    texts = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text"]
    if not texts or len(texts) != len(parts) or not all(isinstance(text, str) for text in texts):
        raise bad_request("The content of every message must be text; other parts are not served here.", "messages")
    return [message["role"], *texts]


def _length(texts: Sequence[str], wanted: Any, default: int, limits: Embedded) -> int:
    """How many tokens the answer may have. A request that outgrew the cache would end the engine for everybody."""
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
