"""The little of HTTP that our routes share: a bounded body, JSON answers, and errors in OpenAI's form.

It knows of ASGI and of nothing that is asked or answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import Receive

from tunegate.serving.events import ApiError, bad_request
from tunegate.serving.protocols import openai

BODY_LIMIT = 1 << 20  # bytes


class ClientGoneError(Exception):
    """The client closed its connection before it had its answer."""


def error_response(error: ApiError, headers: Mapping[str, str] = {}) -> Response:
    """The error in OpenAI's form, with the time after which its clients ask again by themselves."""
    body = openai.error_body(error.status, error.message, error.param, error.code)
    retry = {"retry-after": str(error.retry_after)} if error.retry_after is not None else {}
    return Response(body, error.status, {**headers, **retry}, "application/json")


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] = {}) -> Response:
    return Response(msgspec.json.encode(value), status, dict(headers), "application/json")


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
    """Do `work` to its end, or cancel it and raise ClientGoneError when the client goes. The body was read before."""
    doing = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(receive())  # all that can still come is the disconnect
    try:
        await asyncio.wait({doing, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise ClientGoneError
        doing.result()
    finally:
        doing.cancel()
        gone.cancel()
        await asyncio.gather(doing, gone, return_exceptions=True)
