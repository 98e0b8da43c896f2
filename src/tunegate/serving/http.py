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

BODY_LIMIT = 1 << 20  # bytes


class ApiError(Exception):
    """A refusal or failure that the client is told of. `reason` is the label it is counted under."""

    def __init__(
        self, status: int, message: str, *, reason: str, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.reason = reason
        self.param = param
        self.code = code

    def body(self) -> bytes:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": error})

    def response(self, headers: Mapping[str, str] = {}) -> Response:
        retry = {"retry-after": "1"} if self.status == 503 else {}
        return Response(self.body(), self.status, {**headers, **retry}, "application/json")


class ClientGoneError(Exception):
    """The client closed its connection before it had its answer."""


def bad_request(message: str, param: str | None = None, code: str | None = None, status: int = 400) -> ApiError:
    return ApiError(status, message, reason="request", param=param, code=code)


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
