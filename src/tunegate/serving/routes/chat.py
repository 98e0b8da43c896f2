"""Answers in every protocol: where clients speak as engines do, the engine's as it comes, under an id that we signed.

Bytes are forwarded as the engine sends them and no faster than the client takes them. When the client goes, the
request to the engine is closed, which ends its work. Nothing that is asked or answered is ever in the server's own log;
what is kept of it is `recording`'s.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from time import perf_counter
from typing import Any

import aiohttp
import msgspec
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from tunegate.api.errors import PromptError
from tunegate.api.feedback import StepTag
from tunegate.api.traffic import STEP_HEADER
from tunegate.feedback import ResponseIds, new_nonce
from tunegate.serving.addresses import Hops
from tunegate.serving.assistant import Engine, answer_from_parts
from tunegate.serving.events import ApiError, Ask, Event, Finished, Text, ToolCalls, bad_request
from tunegate.serving.http import ClientGoneError, error_response, read_body, step_of, while_connected
from tunegate.serving.metrics import Metrics
from tunegate.serving.parts import Parts
from tunegate.serving.pipeline import EngineRequest, Rules, answer, prepare, prepare_again
from tunegate.serving.protocols.openai import CHAT
from tunegate.serving.protocols.passthrough import Rewriter
from tunegate.serving.protocols.protocol import Protocol, Writer
from tunegate.serving.recording import CONVERSATION_HEADER, Heard, Recorder
from tunegate.serving.structured import Format, failure

logger = logging.getLogger(__name__)
# The last two keep proxies from holding a stream back until it is whole.
_STREAM_HEADERS = {
    "content-type": "text/event-stream",
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",
}
_BROKE = "The engine broke off; ask again."


@dataclass(frozen=True)
class Chat:
    """The route as an ASGI application, in one protocol. `ready` says whether the engine is warm.

    parts: what the release has in front of its weights, which answers where it is asked for a chat. recorder: logs
    what was answered. hops: whose word on where a request comes from is taken.
    """

    digest: str
    rules: Rules
    engine_url: str
    session: aiohttp.ClientSession
    ids: ResponseIds
    metrics: Metrics
    ready: Callable[[], bool]
    clock: Callable[[], datetime]
    protocol: Protocol = CHAT
    parts: Parts | None = None
    recorder: Recorder | None = None
    hops: Hops = field(default_factory=Hops)

    def speaking(self, protocol: Protocol) -> Chat:
        """The same in another protocol."""
        return replace(self, protocol=protocol)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = perf_counter()
        sending, headers = _Sending(send), Headers(scope=scope)
        step = step_of(headers)
        try:
            body = await read_body(receive)
            self._check_ready()
            ask = self.protocol.read(body, scope["headers"])
            try:
                request = prepare(ask, self.rules)
            except ApiError as error:
                raise error.named(ask.names) from None
            answer = _Answer(self, request, scope, headers, step, started)
            await while_connected(receive, answer.give(scope, receive, sending))
        except ClientGoneError:
            self.metrics.failed("disconnect", step)
        except ApiError as error:
            self.metrics.failed(error.reason, step)
            await self._fail(error, scope, receive, sending)
        except Exception as error:
            logger.error("answer failed", extra={"kind": type(error).__name__})  # noqa: TRY400 - a trace may quote texts
            self.metrics.failed("internal", step)
            await self._fail(ApiError(500, "The server failed.", reason="internal"), scope, receive, sending)

    def _check_ready(self) -> None:
        if not self.ready():
            raise ApiError(503, "The model is not ready; ask again in a moment.", reason="unavailable")

    @property
    def headers(self) -> dict[str, str]:
        return {"x-tunegate-version": self.digest}

    async def _fail(self, error: ApiError, scope: Scope, receive: Receive, sending: _Sending) -> None:
        if sending.failure is None:
            await error_response(error, self.headers, scope["path"])(scope, receive, sending)
        else:  # too late for a status: the stream ends with an error event
            await sending.body(sending.failure(error), more=False)


class _Sending:
    """ASGI's send. failure: how an answer that has begun says that it failed; None before it has begun."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.failure: Callable[[ApiError], bytes] | None = None

    async def __call__(self, message: Any) -> None:
        await self._send(message)

    async def body(self, data: bytes, *, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": more})


class _Answer:
    """One request to the engine and its answer to the client."""

    def __init__(
        self, chat: Chat, request: EngineRequest, scope: Scope, headers: Headers, step: StepTag | None, started: float
    ) -> None:
        self._scope = scope
        self._chat = chat
        self._step = step
        self._request = request
        self._client_headers = headers
        self._started = started
        self._now = chat.clock()
        self._nonce = new_nonce()

    @cached_property
    def _id(self) -> str:
        chat, user = self._chat, self._request.ask.user
        address = None if user else chat.hops.client(self._scope)
        return chat.ids.issue(chat.digest, self._now, user, self._step, self._nonce, address)

    @cached_property
    def _headers(self) -> dict[str, str]:
        headers = self._chat.headers | {"x-request-id": self._id}
        if self._step:
            headers[STEP_HEADER] = self._client_headers[STEP_HEADER]
        if self._request.ask.notes:
            headers["x-tunegate-notice"] = " ".join(self._request.ask.notes)
        return headers

    @cached_property
    def _writer(self) -> Writer:
        made = int(self._now.timestamp())
        return self._chat.protocol.writer(self._request.ask, self._id, self._chat.rules.model, made)

    @cached_property
    def _heard(self) -> Heard:
        conversation = self._client_headers.get(CONVERSATION_HEADER, "")
        return Heard(self._id, self._now, self._step, self._request.ask, conversation)

    @cached_property
    def _opening(self) -> Message:
        """What a stream starts with."""
        headers = {**self._headers, **_STREAM_HEADERS}
        encoded = [(key.encode(), value.encode()) for key, value in headers.items()]
        return {"type": "http.response.start", "status": 200, "headers": encoded}

    def _get_ready(self) -> None:
        """Make what the answer's first bytes would have to wait for."""
        _ = self._heard, self._writer, self._opening

    async def give(self, scope: Scope, receive: Receive, sending: _Sending) -> None:
        """Answer, and let it be logged, however it ends."""
        try:
            await self._give(scope, receive, sending)
        except ApiError as error:
            self._heard.finish = error.reason
            raise
        except Exception:
            self._heard.finish = "internal"
            raise
        except BaseException:  # cancelled, as the client has gone
            self._heard.finish = "disconnect"
            raise
        finally:
            if self._chat.recorder:
                self._heard.seconds = perf_counter() - self._started
                self._chat.recorder.add(self._heard)

    async def _give(self, scope: Scope, receive: Receive, sending: _Sending) -> None:
        self._chat.metrics.asked(self._step)
        try:
            if self._chat.parts and self._request.ask.prompt is None:
                await self._give_from_parts(self._chat.parts, scope, receive, sending)
                return
            if self._request.format:
                events = await self._checked(self._request, self._request.format)
                await self._write(events, scope, receive, sending)
                return
            async with self._ask(self._request) as reply:
                if not self._request.passed:
                    await self._write(answer(reply.content.iter_any(), self._request.stops), scope, receive, sending)
                elif self._request.ask.stream:
                    await self._pass(reply, sending)
                else:
                    whole, tokens = self._whole(body := await reply.read())
                    self._heard.pieces.append(body)
                    self._count(tokens)
                    await whole(scope, receive, sending)
        except aiohttp.ClientConnectorError:
            raise ApiError(503, "The engine is down; ask again in a moment.", reason="unavailable") from None
        except (aiohttp.ClientError, TimeoutError, msgspec.DecodeError):
            raise ApiError(502, _BROKE, reason="engine") from None

    async def _give_from_parts(self, parts: Parts, scope: Scope, receive: Receive, sending: _Sending) -> None:
        """The first event comes before the stream begins: until then a failure has its status."""
        rules, metrics, step = self._chat.rules, self._chat.metrics, self._step

        @asynccontextmanager
        async def ask(asked: Ask) -> AsyncIterator[AsyncIterator[Event]]:
            request = prepare(asked, rules)
            if request.format:
                yield await self._checked(request, request.format)
                return
            async with self._ask(request) as reply:
                yield answer(reply.content.iter_any(), request.stops)

        engine = Engine(lambda asked: prepare(asked, rules), ask)
        async with aclosing(answer_from_parts(self._request.ask, parts, engine)) as events:
            first = await anext(events)

            async def counted() -> AsyncIterator[Event]:
                metrics.happened(first, step)
                yield first
                async for event in events:
                    metrics.happened(event, step)
                    yield event

            await self._write(counted(), scope, receive, sending)

    @asynccontextmanager
    async def _ask(self, request: EngineRequest) -> AsyncIterator[aiohttp.ClientResponse]:
        """The engine's answer; its refusals become ours. Raises ApiError."""
        # Not the id itself: whoever has that may judge the answer.
        headers = {"content-type": "application/json", "x-request-id": self._nonce.hex()}
        # While the engine works: aiohttp sends the request in the loop's next round, this is done in the one after it.
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, self._get_ready)
        url = self._chat.engine_url + request.path
        async with self._chat.session.post(url, data=request.body, headers=headers) as reply:
            if reply.status != 200:
                raise _refusal(reply.status, await reply.content.read(1 << 16))
            yield reply

    def _whole(self, body: bytes) -> tuple[Response, int]:
        """The engine's answer under our names, and its tokens."""
        answer = msgspec.json.decode(body, type=dict[str, Any])
        answer |= {"id": self._id, "model": self._chat.rules.model}
        response = Response(msgspec.json.encode(answer), 200, self._headers, "application/json")
        return response, _tokens(answer.get("usage"))

    async def _checked(self, request: EngineRequest, wanted: Format) -> AsyncIterator[Event]:
        """The events of an answer that is the JSON asked for, if need be at the second try. Raises ApiError."""
        text, problem = "", ""
        for _ in range(2):
            if problem:
                request = prepare_again(request, text, problem, self._chat.rules)
            async with self._ask(request) as reply:
                events = [event async for event in answer(reply.content.iter_any(), request.stops)]
            text = "".join(event.delta for event in events if isinstance(event, Text) and not event.reasoning)
            try:
                found = wanted.read(text)
            except PromptError as error:
                problem = str(error)
            else:
                return _each([Text(found), events[-1]])
        raise failure(problem)

    async def _write(self, events: AsyncIterator[Event], scope: Scope, receive: Receive, sending: _Sending) -> None:
        """The answer from events, as a stream or in one piece."""
        if not self._request.ask.stream:
            found = [event async for event in events]
            self._heard.pieces += found
            body = self._writer.whole(found)
            self._count(sum(_tokens(event.usage) for event in found if isinstance(event, Finished)))
            await Response(body, 200, self._headers, "application/json")(scope, receive, sending)
            return
        await self._start(sending)
        if first := self._writer.start():
            await sending.body(first)
        waiting = True
        async for event in events:
            self._heard.pieces.append(event)
            if isinstance(event, Finished):
                self._count(_tokens(event.usage))
            if data := self._writer.write(event):
                await sending.body(data, more=not isinstance(event, Finished))
            if waiting and isinstance(event, Text | ToolCalls):
                waiting = False
                self._first_text()

    async def _start(self, sending: _Sending) -> None:
        sending.failure = self._writer.failure
        await sending(self._opening)

    async def _pass(self, reply: aiohttp.ClientResponse, sending: _Sending) -> None:
        """The engine's bytes under our names, as they come."""
        rewriter = Rewriter({"id": self._id, "model": self._chat.rules.model})
        await self._start(sending)
        waiting = True
        async for data in reply.content.iter_any():
            self._heard.pieces.append(data)
            if lines := rewriter.feed(data):
                await sending.body(lines)
            if rewriter.failed:
                break
            if waiting and rewriter.pieces:
                waiting = False
                self._first_text()
        last = rewriter.end()
        if rewriter.failed:
            await sending.body(last)
            raise ApiError(502, "The engine failed; ask again.", reason="engine")
        self._count(rewriter.pieces)
        await sending.body(last, more=False)

    def _first_text(self) -> None:
        self._heard.first_text = seconds = perf_counter() - self._started
        self._chat.metrics.first_token(seconds, self._step)

    def _count(self, tokens: int) -> None:
        """Before the last byte: clients close at it, and whoever has an answer should find it counted."""
        self._chat.metrics.answered(perf_counter() - self._started, self._step, tokens)


def _tokens(usage: Mapping[str, Any] | None) -> int:
    """The tokens that an engine says it wrote; 0 where it says nothing."""
    return int((usage or {}).get("completion_tokens") or 0)


async def _each(events: Iterable[Event]) -> AsyncIterator[Event]:
    for event in events:
        yield event


def _refusal(status: int, body: bytes) -> ApiError:
    """What the client is told when the engine answers with `status`."""
    if status in (429, 503):
        return ApiError(status, "The engine takes no requests now; ask again in a moment.", reason="unavailable")
    if status >= 500:
        return ApiError(502, "The engine failed; ask again.", reason="engine")
    return bad_request(f"The engine refused the request: {_message(body)}")


def _message(body: bytes) -> str:
    """The engine's reason, in the forms that engines use."""
    try:
        reply = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "it gave no reason."
    if not isinstance(reply, dict):
        return "it gave no reason."
    error = reply.get("error", reply.get("detail", reply.get("message")))
    return str(error.get("message") if isinstance(error, dict) else error)[:500]
