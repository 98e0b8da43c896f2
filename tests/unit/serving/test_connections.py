from __future__ import annotations

import asyncio
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn

from tests.unit.serving.standin import in_thread
from tests.waiting import wait_for_async
from tunegate.processes import free_port
from tunegate.serving.connections import with_limits

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n"


@dataclass
class Echo:
    """Answers when it may, after its head when it may speak; `size` makes the answer long. working: how long it keeps
    the processor between the head and the rest."""

    port: int = 0
    size: int = 1
    may_answer: threading.Event = field(default_factory=threading.Event)
    may_speak: threading.Event = field(default_factory=threading.Event)
    working: float = 0
    broke_off: threading.Event = field(default_factory=threading.Event)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message.get("more_body"):
                break
        while not self.may_answer.is_set():
            await asyncio.sleep(0.01)
        piece = body * self.size
        headers = [(b"content-length", str(self.size * len(piece)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        while not self.may_speak.is_set():
            await asyncio.sleep(0.01)
        time.sleep(self.working)
        for number in range(self.size):
            await send({"type": "http.response.body", "body": piece, "more_body": number + 1 < self.size})
        if (await receive())["type"] == "http.disconnect":
            self.broke_off.set()


@pytest.fixture
def idle_seconds() -> float:
    """Longer than a busy machine takes from a connection to its first byte; a test that is about this says less."""
    return 100


@pytest.fixture
def echo(idle_seconds: float) -> Iterator[Echo]:
    app = Echo(free_port())
    app.may_speak.set()
    limits = with_limits(idle_seconds=idle_seconds, request_seconds=0.3, reading_seconds=0.3)

    async def main(stop: asyncio.Event, started: Callable[[], None]) -> None:
        config = uvicorn.Config(
            app, port=app.port, http=limits, timeout_keep_alive=100, log_config=None, lifespan="off", ws="none"
        )
        server = uvicorn.Server(config)
        serving = asyncio.ensure_future(server.serve())
        await wait_for_async(lambda: server.started, what="the server to listen")
        started()
        await stop.wait()
        server.should_exit = True
        await serving

    end = in_thread(main)
    yield app
    app.may_answer.set()
    app.may_speak.set()
    end()


def connect(echo: Echo) -> Any:
    return closing(socket.create_connection(("127.0.0.1", echo.port), timeout=100))


def is_closed(connection: socket.socket) -> bool:
    """Whether the server closes without a word; waits until it does."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def status(connection: socket.socket) -> int:
    """Of the next answer, which is read to its end."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    response.read()
    return response.status


@pytest.mark.parametrize(
    ("idle_seconds", "sent"),
    [(0.3, b""), (100, HEAD[:30]), (100, HEAD + b"\r\n"), (100, HEAD + b"\r\nab")],
    ids=["nothing", "half a head", "no body", "half a body"],
)
def test_what_is_never_sent_whole_is_not_waited_for(echo: Echo, sent: bytes) -> None:
    with connect(echo) as connection:
        connection.sendall(sent)
        assert is_closed(connection)


def test_an_answer_may_take_its_time_and_the_connection_serves_again(echo: Echo) -> None:
    with connect(echo) as waiting:
        waiting.sendall(HEAD + b"\r\nabc")
        with connect(echo) as stalled:  # begun later and cut off: the first one outlived the limit
            stalled.sendall(HEAD)
            assert is_closed(stalled)
        echo.may_answer.set()
        assert status(waiting) == 200
        waiting.sendall(HEAD + b"\r\nabc")
        assert status(waiting) == 200
        waiting.sendall(b"\r\n")  # what is no request keeps nothing open
        assert is_closed(waiting)


def test_who_takes_nothing_of_an_answer_is_let_go(echo: Echo) -> None:
    echo.size = 10_000
    echo.may_answer.set()
    with connect(echo) as connection:
        connection.sendall(HEAD + b"\r\nabc")
        assert echo.broke_off.wait(100)


def test_an_answer_begins_in_one_piece(echo: Echo) -> None:
    echo.working = 0.3
    echo.may_answer.set()
    with connect(echo) as connection:
        connection.sendall(HEAD + b"\r\nabc")
        first = connection.recv(1 << 16)
        assert first.startswith(b"HTTP/1.1 200 OK\r\n")
        assert first.endswith(b"\r\n\r\nabc")


def test_a_head_does_not_wait_for_a_text_that_is_not_there(echo: Echo) -> None:
    echo.may_answer.set()
    echo.may_speak.clear()
    with connect(echo) as connection:
        connection.sendall(HEAD + b"\r\nabc")
        assert connection.recv(1 << 16).endswith(b"\r\n\r\n")
        echo.may_speak.set()
        assert connection.recv(1 << 16) == b"abc"
