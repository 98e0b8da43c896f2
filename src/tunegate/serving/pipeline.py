"""From what a client asks to what the engine is asked, or a refusal that names the field, and to the answer's events.

The engine's bytes pass through where they are what the client is to get. They are read into events where they aren't:
the embedded engine stops for a client that has gone only while it streams, and sends usage in its own place, so a whole
answer, and a stream that is to end with usage, are made here of its stream.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from tunegate.api.traffic import CHAT_PATH, COMPLETIONS_PATH
from tunegate.serving.events import Ask, Event, Finished, Text, bad_request
from tunegate.serving.features import ANY, LENGTHS, EngineFeatures
from tunegate.serving.limits import Embedded, fit
from tunegate.serving.protocols.engine import EngineStream
from tunegate.serving.stops import StopScanner, read_stops
from tunegate.serving.structured import Format, ask_again, read_format
from tunegate.serving.tokens import Tokens


@dataclass(frozen=True)
class Rules:
    """How requests become the engine's. `features`: what it honors; `embedded`: the embedded one's further limits.

    tokens: the model's ids, as far as they are known here. searches: the release has something to search.
    """

    model: str
    engine_model: str
    system_prompt: str = ""
    defaults: Mapping[str, float] = field(default_factory=dict)
    embedded: Embedded | None = None
    features: EngineFeatures = ANY
    tokens: Tokens = field(default_factory=Tokens)
    searches: bool = False


@dataclass(frozen=True)
class EngineRequest:
    """What is sent to the engine. `passed`: its bytes go to the client as they come; else they are read into events.

    stops: the texts that end the answer. format: the JSON that it is to be.
    """

    path: str
    body: bytes
    ask: Ask
    passed: bool
    stops: tuple[str, ...] = ()
    format: Format | None = None


def prepare(ask: Ask, rules: Rules) -> EngineRequest:
    """The engine's form of what is asked. Raises ApiError 400 or 404 that names the field."""
    if ask.model != rules.model:
        message = f"The model {ask.model[:100]!r} does not exist here; the model served is {rules.model!r}."
        raise bad_request(message, "model", "model_not_found", status=404)
    if ask.search and not rules.searches:
        name = "parameters.enable_search"  # DashScope's word; nobody else has one
        raise bad_request(f"{name}: the version served has no search; leave it out.", name)
    rules.tokens.check_special(ask.token_ids, ask.names)
    rules.tokens.check_prompt(ask.prompt)
    asked: dict[str, Any] = {"prompt": ask.prompt}
    if ask.prompt is None:
        asked = {"messages": with_system_prompt(ask.messages, rules.system_prompt)}
    elif field := next((name for name in ("response_format", "tools") if ask.fields.get(name)), None):
        raise bad_request(f"{field} goes with messages, not with a prompt; leave it out.", field)
    request = {"model": rules.engine_model, **asked, **ask.fields}
    drawn = rules.embedded.sampling.temperature if rules.embedded else rules.defaults.get("temperature", 1)
    rules.features.check(request, greedy=request.get("temperature", drawn) == 0)
    passed, stops, wanted = ask.native, tuple[str, ...](), None
    if rules.embedded is None:
        request = {**_missing(request, rules.defaults), **request}
    else:
        stops, wanted = read_stops(request), read_format(request)
        if wanted:
            request["messages"] = wanted.instruct(request["messages"])
        request = {**fit(request, rules.embedded, rules.defaults), "stream": True}
        passed = ask.native and ask.stream and not (ask.include_usage or stops or wanted)
    if not passed:  # it must stream, and say how many tokens there were, if it wouldn't unasked
        request["stream"] = True
        if rules.features.usage_in_chunks:
            request["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
        elif rules.features.fields is None:
            request["stream_options"] = {"include_usage": True}
    try:
        body = msgspec.json.encode(request)
    except RecursionError:
        raise bad_request("The body is nested too deeply; flatten it.") from None
    path = CHAT_PATH if ask.prompt is None else COMPLETIONS_PATH
    return EngineRequest(path, body, ask, passed, stops, wanted)


def prepare_again(request: EngineRequest, answer: str, problem: str, rules: Rules) -> EngineRequest:
    """The same question once more, after an answer that has a problem. Raises ApiError 400 when it gets too long."""
    messages = [*request.ask.messages, *ask_again(answer, problem)]
    return prepare(replace(request.ask, messages=messages), rules)


async def answer(engine: AsyncIterator[bytes], stops: Sequence[str] = ()) -> AsyncIterator[Event]:
    """The events of an answer from the engine's stream; the last is Finished. Raises ApiError when it fails.

    At a stop string the answer ends, whatever the engine would still say: how many tokens it took is then not known.
    """
    stream, scanner = EngineStream(), StopScanner(stops)
    async for data in engine:
        for event in stream.feed(data):
            if not isinstance(event, Text) or event.reasoning:
                yield event
            elif text := scanner.feed(event.delta):
                yield Text(text)
            if scanner.stopped:
                yield Finished("stop")
                return
    for event in stream.end():
        if isinstance(event, Finished) and (text := scanner.end()):
            yield Text(text)
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
