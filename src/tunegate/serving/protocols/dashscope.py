"""DashScope's text generation, as its SDK speaks it: request bytes to an Ask, and events to bytes.

Whether to stream is said in a header. A stream carries the whole text so far in each event, unless pieces are asked
for, and just ends. What its SDK can't take: [DONE], a space after `event:`, an event without output, and an error
without `status:`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from tunegate.serving.events import ApiError, Ask, Cited, Event, Sources, Step, Text, ToolCalls, Used, bad_request
from tunegate.serving.protocols.protocol import Headers, Protocol, check_messages, decode
from tunegate.serving.protocols.whole import Whole, joined

_SAMPLING = ("temperature", "top_p", "top_k", "max_tokens", "seed", "repetition_penalty", "presence_penalty")
_PASSED = (*_SAMPLING, "tools", "tool_choice", "parallel_tool_calls", "response_format")
_CODES = {
    400: "InvalidParameter",
    401: "InvalidApiKey",
    403: "AccessDenied",
    404: "InvalidURL",
    429: "Throttling.RateQuota",
    503: "ModelUnavailable",
}
_EMPTY_INPUT, _EMPTY_MODEL, _NO_MODEL = "BadRequest.EmptyInput", "BadRequest.EmptyModel", "ModelNotFound"
_OWN_CODES = {_EMPTY_INPUT: _EMPTY_INPUT, _EMPTY_MODEL: _EMPTY_MODEL, "model_not_found": _NO_MODEL}
T = TypeVar("T", bound=Struct)


class StopWord(Struct, forbid_unknown_fields=True):
    stop_str: str
    mode: Literal["exclude"] = "exclude"


class Turn(Struct, forbid_unknown_fields=True):
    user: str
    bot: str


class SearchOptions(Struct, forbid_unknown_fields=True):
    """What was found comes before the text in any case."""

    enable_source: bool = True
    prepend_search_result: bool = True


class GenerationInput(Struct, forbid_unknown_fields=True):
    messages: list[dict[str, Any]] | None = None
    prompt: str | list[dict[str, Any]] | None = None
    history: list[Turn] = []


class GenerationParameters(Struct, forbid_unknown_fields=True):
    """Those of the SDK's documentation, and `use_raw_prompt` and `stop_words`, which its older callers send."""

    temperature: Annotated[float, Meta(ge=0, lt=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0)] | None = None
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    seed: Annotated[int, Meta(ge=0)] | None = None
    stop: str | list[str] = []
    stop_words: list[StopWord] = []
    repetition_penalty: Annotated[float, Meta(gt=0)] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    n: int = 1
    logprobs: bool = False
    top_logprobs: int = 0
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    enable_thinking: bool | None = None
    enable_search: bool = False
    search_options: SearchOptions | None = None
    incremental_output: bool = False
    result_format: Literal["text", "message"] = "text"
    use_raw_prompt: bool = False


def read(body: bytes, headers: Headers = ()) -> Ask:
    """What the client asks. Raises ApiError 400 that names the field."""
    request = decode(body)
    _refuse_unknown("", set(request) - {"model", "input", "parameters"})
    model = request.get("model")
    if not isinstance(model, str) or not model:
        raise bad_request("model is missing; GET /v1/models names the one served.", "model", _EMPTY_MODEL)
    given = _convert("input", request.get("input", {}), GenerationInput)
    asked = _convert("parameters", request.get("parameters", {}), GenerationParameters)
    if asked.n != 1:
        raise bad_request("parameters.n: one answer is given to a request here; ask again for another.", "parameters.n")
    if asked.logprobs or asked.top_logprobs:
        name = "parameters.logprobs" if asked.logprobs else "parameters.top_logprobs"
        raise bad_request(f"{name} is served at /v1/chat/completions alone; leave it out here.", name)
    raw = given.prompt if asked.use_raw_prompt and isinstance(given.prompt, str) and given.prompt else None
    if raw is not None and given.history:
        raise bad_request("input.history goes with a chat; with use_raw_prompt, write it into prompt.", "input.history")
    stream = any(
        (name == b"x-dashscope-sse" and value.lower() == b"enable") or (name == b"accept" and b"event-stream" in value)
        for name, value in headers
    )
    return Ask(
        model=model,
        messages=[] if raw else _messages(given),
        prompt=raw,
        stream=stream,
        fields=_fields(asked),
        names={"chat_template_kwargs": "enable_thinking"},
        native=False,
        incremental=asked.incremental_output,
        search=asked.enable_search,
        with_sources=asked.search_options is None or asked.search_options.enable_source,
        as_message=asked.result_format == "message" or bool(asked.tools),
    )


def _messages(given: GenerationInput) -> list[dict[str, Any]]:
    if given.messages is not None and given.prompt is not None:
        raise bad_request("input has both messages and prompt; give one of them.", "input.prompt")
    if given.messages is not None and given.history:
        raise bad_request("input.history goes with prompt; add its turns to messages.", "input.history")
    turns = given.messages if given.messages is not None else given.prompt
    if not turns:
        raise bad_request("input is empty; give messages or a prompt.", "input", _EMPTY_INPUT)
    if isinstance(turns, str):
        turns = [{"role": "user", "content": turns}]
    before = [
        {"role": role, "content": text}
        for turn in given.history
        for role, text in (("user", turn.user), ("assistant", turn.bot))
    ]
    return before + check_messages(turns, "input.messages" if given.messages else "input.prompt")


def _fields(asked: GenerationParameters) -> dict[str, Any]:
    fields = {name: value for name in _PASSED if (value := getattr(asked, name)) is not None}
    stop = [asked.stop] if isinstance(asked.stop, str) else asked.stop
    if stop := [*stop, *(word.stop_str for word in asked.stop_words)]:
        fields["stop"] = stop
    if asked.enable_thinking is not None:
        fields["chat_template_kwargs"] = {"enable_thinking": asked.enable_thinking}
    return fields


def _convert(where: str, value: Any, kind: type[T]) -> T:
    if isinstance(value, dict):
        _refuse_unknown(where, set(value) - set(kind.__struct_fields__))
        value = {name: given for name, given in value.items() if given is not None}
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        said, _, at = str(error).partition(" - at `$")
        field = where + re.sub(r"`$", "", at)
        raise bad_request(f"{field}: {said}.", field) from None


def _refuse_unknown(where: str, names: set[str]) -> None:
    if names:
        fields = sorted(f"{where}.{name}"[:100].removeprefix(".") for name in names)
        raise bad_request(f"Not known here, leave it out: {', '.join(fields[:20])}.", fields[0])


def error(failed: ApiError, request_id: str = "") -> bytes:
    """The JSON of an error, as a body or as the data of an event."""
    code = _OWN_CODES.get(failed.code or "") or _CODES.get(failed.status)
    code = code or ("InternalError" if failed.status >= 500 else "InvalidParameter")
    return msgspec.json.encode({"code": code, "message": failed.message, "request_id": request_id})


class Writer:
    """Events to bytes; the id of the answer is the id of the request, too."""

    def __init__(self, answer_id: str, incremental: bool, as_message: bool, with_sources: bool = True) -> None:
        self._id = answer_id
        self._incremental = incremental
        self._as_message = as_message
        self._with_sources = with_sources
        self._sofar = Whole()
        self._count = 0

    def start(self) -> bytes:
        return b""

    def write(self, event: Event) -> bytes:
        """The event of a stream for one of ours: the answer so far or, if asked for, the new piece alone."""
        self._sofar.add(event)
        if isinstance(event, Used | Cited):
            return b""
        shown = self._sofar
        if self._incremental:
            shown = Whole(usage=shown.usage, reason=shown.reason)
            if isinstance(event, ToolCalls):
                shown.calls = event.calls  # pieces, numbered
            elif isinstance(event, Text | Step | Sources):
                shown.add(event)
        return self._event("result", 200, msgspec.json.encode(self._answer(shown)))

    def whole(self, events: Iterable[Event]) -> bytes:
        """The answer in one piece; `events` hold a Finished."""
        return msgspec.json.encode(self._answer(joined(events)))

    def failure(self, failed: ApiError) -> bytes:
        """The event that ends a stream; without `status:` the SDK would call every failure 400."""
        return self._event("error", failed.status, error(failed, self._id), f"status:{failed.status}\n")

    def _event(self, kind: str, status: int, data: bytes, extra: str = "") -> bytes:
        self._count += 1
        return f"id:{self._count}\nevent:{kind}\n:HTTP_STATUS/{status}\n{extra}data:".encode() + data + b"\n\n"

    def _answer(self, shown: Whole) -> dict[str, Any]:
        finish = shown.reason or "null"
        output: dict[str, Any]
        if self._as_message:
            output = {"choices": [{"finish_reason": finish, "message": shown.message()}]}
        else:
            reasoning = {"reasoning_content": shown.reasoning} if shown.reasoning else {}
            output = {"finish_reason": finish, "text": shown.text, **reasoning}
        if shown.sources and self._with_sources:
            found = [{"index": it.number, "title": it.title, "url": it.uri} for it in shown.sources.sources]
            output["search_info"] = {"search_results": [{**it, "site_name": "", "icon": ""} for it in found]}
        if shown.steps:
            output["tunegate"] = {"steps": shown.steps}
        usage = {"usage": _usage(shown.usage)} if shown.usage else {}
        return {"output": output, **usage, "request_id": self._id}


def _usage(usage: Mapping[str, Any]) -> dict[str, Any]:
    names = {"total_tokens": "total_tokens", "input_tokens": "prompt_tokens", "output_tokens": "completion_tokens"}
    return {ours: usage.get(name, 0) for ours, name in names.items()}


def write(ask: Ask, answer_id: str, model: str, created: int) -> Writer:
    return Writer(answer_id, ask.incremental, ask.as_message, ask.with_sources)


GENERATION = Protocol(read, write, error)
