"""Connections that stall are closed, so that nobody holds a server by doing nothing: uvicorn's has no such limits."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

KEEP_ALIVE_SECONDS = 65  # longer than proxies keep idle connections, so that they close them first


class Connection(HttpToolsProtocol):
    """One connection, which has a time limit wherever it is the client's turn.

    idle_seconds: without a byte of a first request. request_seconds: from the first byte of a request to its last.
    reading_seconds: while the client takes nothing of an answer that waits for it.
    """

    idle_seconds: float = KEEP_ALIVE_SECONDS
    request_seconds: float = 20.0
    reading_seconds: float = 60.0
    _turn: asyncio.TimerHandle | None = None
    _reading: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(_WithHead(transport, self.loop))  # type: ignore[arg-type]
        self._wait(self.idle_seconds)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        is_idle = self.cycle is not None and self.cycle.response_complete and self.timeout_keep_alive_task is None
        if is_idle and self._turn is None:  # what came is no request yet, such as an empty line
            self._wait(self.request_seconds)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._wait(self.request_seconds)

    def on_message_complete(self) -> None:
        self._wait(None)
        super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reading = self.loop.call_later(self.reading_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._reading:
            self._reading.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait(None)
        if self._reading:
            self._reading.cancel()
        super().connection_lost(exc)

    def _wait(self, seconds: float | None) -> None:
        """Give the client so much time; None when it is our turn."""
        if self._turn:
            self._turn.cancel()
        self._turn = self.loop.call_later(seconds, self.transport.abort) if seconds is not None else None


class _WithHead:
    """A transport that sends an answer's head together with what follows it in the same round of the loop.

    A client that wakes up for the head alone takes the processor from the text that it waits for.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._head = b""

    def write(self, data: bytes) -> None:
        if data.startswith(b"HTTP/1."):
            self._head = data
            self._loop.call_soon(self._send_head)
        else:
            head, self._head = self._head, b""
            self._transport.write(head + data)

    def close(self) -> None:
        self._send_head()
        self._transport.close()

    def _send_head(self) -> None:
        if self._head:
            self.write(b"")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def with_limits(**seconds: Any) -> type[Connection]:
    """A kind of connection with other limits."""
    return type("Connection", (Connection,), seconds)
