"""The little of HTTP that our routes share: a bounded body, JSON answers, and errors in the form of each protocol.

It knows of ASGI and of nothing that is asked or answered.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Coroutine, Mapping
from typing import Any

import msgspec
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive

from tunegate.api.feedback import StepTag, step_tag
from tunegate.api.traffic import STEP_HEADER, parse_step
from tunegate.serving.events import ApiError, bad_request
from tunegate.serving.protocols import error_body

BODY_LIMIT = 1 << 20  # bytes


class ClientGoneError(Exception):
    """The client closed its connection before it had its answer."""


def error_response(error: ApiError, headers: Mapping[str, str] = {}, path: str = "") -> Response:
    """The error as clients of `path` read it, with an id to ask about and the time after which to try again."""
    request_id = headers.get("x-request-id") or secrets.token_hex(16)
    retry = {"retry-after": str(error.retry_after)} if error.retry_after is not None else {}
    body = error_body(path, error, request_id)
    return Response(body, error.status, {"x-request-id": request_id, **headers, **retry}, "application/json")


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] = {}) -> Response:
    return Response(msgspec.json.encode(value), status, dict(headers), "application/json")


def step_of(headers: Headers) -> StepTag | None:
    """The step of a promotion that whoever splits the traffic sent a request in."""
    found = parse_step(headers.get(STEP_HEADER, ""))
    return step_tag(*found) if found else None


async def read_body(receive: Receive, limit: int = BODY_LIMIT) -> bytes:
    """The whole request body. Raises ApiError 413 above `limit` bytes, ClientGoneError when it breaks off."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        part: bytes = message.get("body", b"")
        body += part
        if len(body) > limit:
            raise bad_request(f"The request is larger than {limit} bytes; send less text.", status=413)
        if not message.get("more_body"):
            return body


async def while_connected(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Do `work` to its end, or cancel it and raise ClientGoneError when the client goes. The body was read before.

    It is done in the task that calls: one more would cost time before the engine is asked.
    """
    doing, is_done = asyncio.current_task(), False
    assert doing is not None, "a coroutine that runs is part of a task"

    def cancel(_: object) -> None:
        if not is_done:
            doing.cancel()

    gone = asyncio.ensure_future(receive())  # all that can still come is the disconnect
    gone.add_done_callback(cancel)
    try:
        await work
    except asyncio.CancelledError:
        if gone.done() and doing.uncancel() == 0:
            raise ClientGoneError from None
        raise
    finally:
        is_done = True
        gone.cancel()
