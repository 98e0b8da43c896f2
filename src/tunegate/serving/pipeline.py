"""From what a client asks to what the engine is asked, or a refusal that names the field, and to the answer's events.

The engine's bytes pass through where they are what the client is to get. They are read into events where they aren't:
the embedded engine stops for a client that has gone only while it streams, and sends usage in its own place, so a whole
answer, and a stream that is to end with usage, are made here of its stream.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from tunegate.api.traffic import CHAT_PATH, COMPLETIONS_PATH
from tunegate.serving.events import Ask, Event, bad_request
from tunegate.serving.features import ANY, LENGTHS, EngineFeatures
from tunegate.serving.limits import Embedded, fit
from tunegate.serving.protocols.engine import EngineStream


@dataclass(frozen=True)
class Rules:
    """How requests become the engine's. `features`: what it honors; `embedded`: the embedded one's further limits."""

    model: str
    engine_model: str
    system_prompt: str = ""
    defaults: Mapping[str, float] = field(default_factory=dict)
    embedded: Embedded | None = None
    features: EngineFeatures = ANY


@dataclass(frozen=True)
class EngineRequest:
    """What is sent to the engine. `passed`: its bytes go to the client as they come; else they are read into events."""

    path: str
    body: bytes
    ask: Ask
    passed: bool


def prepare(ask: Ask, rules: Rules) -> EngineRequest:
    """The engine's form of what is asked. Raises ApiError 400 or 404 that names the field."""
    if ask.model != rules.model:
        message = f"The model {ask.model[:100]!r} does not exist here; the model served is {rules.model!r}."
        raise bad_request(message, "model", "model_not_found", status=404)
    asked: dict[str, Any] = {"prompt": ask.prompt}
    if ask.prompt is None:
        asked = {"messages": with_system_prompt(ask.messages, rules.system_prompt)}
    request = {"model": rules.engine_model, **asked, **ask.fields}
    drawn = rules.embedded.sampling.temperature if rules.embedded else rules.defaults.get("temperature", 1)
    rules.features.check(request, greedy=request.get("temperature", drawn) == 0)
    passed = ask.native
    if rules.embedded is None:
        request = {**_missing(request, rules.defaults), **request}
    else:
        request = {**fit(request, rules.embedded, rules.defaults), "stream": True}
        passed = ask.native and ask.stream and not ask.include_usage
    if not passed:
        request |= _streamed(rules.features)
    try:
        body = msgspec.json.encode(request)
    except RecursionError:
        raise bad_request("The body is nested too deeply; flatten it.") from None
    return EngineRequest(CHAT_PATH if ask.prompt is None else COMPLETIONS_PATH, body, ask, passed)


def _streamed(features: EngineFeatures) -> dict[str, Any]:
    """What makes an engine stream, and say how many tokens there were, if it wouldn't unasked."""
    if features.fields is not None and not features.usage_in_chunks:
        return {"stream": True}
    continuous = {"continuous_usage_stats": True} if features.usage_in_chunks else {}
    return {"stream": True, "stream_options": {"include_usage": True, **continuous}}


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
    asked = {"max_tokens" if key in LENGTHS else key for key in request}
    return {key: value for key, value in defaults.items() if key not in asked}
