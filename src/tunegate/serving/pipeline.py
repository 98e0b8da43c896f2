"""From what a client asks to what the engine is asked, or a refusal that names the field, and to the answer's events.

The engine's bytes pass through where they are what the client is to get. They are read into events where they aren't:
the embedded engine stops for a client that has gone only while it streams, and sends usage in its own place, so a whole
answer, and a stream that is to end with usage, are made here of its stream.
Where the engine can't honor a field, the client hears so: an answer that silently ignores `temperature` or
`response_format` would be a wrong answer. Fields that change nothing about the answer are dropped.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from tunegate.serving.events import Ask, Event, bad_request
from tunegate.serving.protocols.openai import EngineStream

# Fields that are about billing, storage or caching, or only ask for what is sent anyway (usage, in the last chunk).
_IRRELEVANT = frozenset(
    {"user", "safety_identifier", "metadata", "store", "service_tier", "seed", "stream_options"}
) | {
    "prompt_cache_key",
    "prompt_cache_retention",
    "parallel_tool_calls",
}
# Fields of the API that the engine lacks, with the values that ask for nothing.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "stop": ([],),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
}
_LENGTHS = ("max_tokens", "max_completion_tokens")
_KEPT = frozenset({"model", "messages", "stream", "temperature", "top_p", *_LENGTHS})
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


@dataclass(frozen=True)
class Rules:
    """How requests become the engine's. `embedded` is None for an engine that decides on every field itself."""

    model: str
    engine_model: str
    system_prompt: str = ""
    defaults: Mapping[str, float] = field(default_factory=dict)
    embedded: Embedded | None = None


@dataclass(frozen=True)
class ChatRequest:
    """What is sent to the engine. `passed`: its bytes go to the client as they come; else they are read into events."""

    body: bytes
    ask: Ask
    passed: bool


def prepare(ask: Ask, rules: Rules) -> ChatRequest:
    """The engine's form of what is asked. Raises ApiError 400 or 404 that names the field."""
    if ask.model != rules.model:
        message = f"The model {ask.model[:100]!r} does not exist here; the model served is {rules.model!r}."
        raise bad_request(message, "model", "model_not_found", status=404)
    messages = with_system_prompt(ask.messages, rules.system_prompt)
    request = {"model": rules.engine_model, "messages": messages, **ask.fields}
    if rules.embedded is None:
        request = {**_missing(request, rules.defaults), **request}
        return ChatRequest(msgspec.json.encode(request), ask, passed=True)
    request = _for_embedded(request, rules.embedded, rules.defaults)
    passed = ask.stream and not ask.include_usage
    return ChatRequest(msgspec.json.encode({**request, "stream": True}), ask, passed)


async def answer(engine: AsyncIterator[bytes]) -> AsyncIterator[Event]:
    """The events of an answer from the engine's stream; the last is Finished. Raises ApiError when it fails."""
    stream = EngineStream()
    async for data in engine:
        for event in stream.feed(data):
            yield event
    for event in stream.end():
        yield event


def with_system_prompt(messages: list[dict[str, Any]], prompt: str) -> list[dict[str, Any]]:
    """The messages under the release's system prompt, unless they start with one of their own."""
    if not prompt or messages[0].get("role") in ("system", "developer"):
        return messages
    return [{"role": "system", "content": prompt}, *messages]


def _missing(request: Mapping[str, Any], defaults: Mapping[str, float]) -> dict[str, float]:
    """The release's defaults for what the request leaves open."""
    asked = {"max_tokens" if key in _LENGTHS else key for key in request}
    return {key: value for key, value in defaults.items() if key not in asked}


def _for_embedded(request: dict[str, Any], engine: Embedded, defaults: Mapping[str, float]) -> dict[str, Any]:
    for key, value in request.items():
        if key in _NEUTRAL and value not in _NEUTRAL[key]:
            raise bad_request(f"The engine of this server can't do {key}; {_TAKE_OUT}.", key, "unsupported_parameter")
        if key not in _NEUTRAL and key not in _IRRELEVANT and key not in _KEPT:
            raise bad_request(f"Unknown field {key[:100]!r}; {_TAKE_OUT}.", key[:100], "unsupported_parameter")
    _check_sampling(request, engine.sampling)
    texts = [text for message in request["messages"] for text in _texts(message)]
    wanted = next((request[key] for key in reversed(_LENGTHS) if key in request), None)
    length = _length(texts, wanted, int(defaults.get("max_tokens", 1024)), engine)
    return {
        "model": request["model"],
        "messages": request["messages"],
        "max_tokens": length,
    }


def _check_sampling(request: Mapping[str, Any], sampling: Sampling) -> None:
    for key, fixed in (("temperature", sampling.temperature), ("top_p", sampling.top_p)):
        value = request.get(key, fixed)
        irrelevant = key == "top_p" and sampling.temperature == 0
        if value != fixed and not irrelevant:
            message = f"The engine of this server draws all answers with the release's {key} of {fixed:g}; {_TAKE_OUT}."
            raise bad_request(message, key, "unsupported_value")


def _texts(message: Mapping[str, Any]) -> list[str]:
    if not isinstance(message.get("role"), str):
        raise bad_request("Every message needs a role, such as 'user'.", "messages")
    content = message.get("content")
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    texts = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text"]
    if not texts or len(texts) != len(parts) or not all(isinstance(text, str) for text in texts):
        raise bad_request("The content of every message must be text; other parts are not served here.", "messages")
    return [message["role"], *texts]


def _length(texts: Sequence[str], wanted: Any, default: int, engine: Embedded) -> int:
    """How many tokens the answer may have. A request that outgrew the cache would end the engine for everybody."""
    if wanted is not None and (not isinstance(wanted, int) or isinstance(wanted, bool) or wanted < 1):
        raise bad_request("max_tokens must be a whole number of at least 1.", "max_tokens")
    around = 64 + 16 * len(texts)  # more than any chat template adds
    prompt = around + sum(len(text.encode()) for text in texts)  # no token is shorter than a byte
    if prompt + (wanted or default) > engine.context:
        prompt = around + engine.count(texts)
    room = engine.context - prompt
    if room < (wanted or 1):
        message = (
            f"The conversation (about {prompt} tokens) and max_tokens must fit {engine.context} tokens; shorten it."
        )
        raise bad_request(message, "messages", "context_length_exceeded")
    return wanted or min(default, room)
