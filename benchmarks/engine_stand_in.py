"""An engine that costs nothing: it streams chunks of the size that real engines send, at a fixed rate.

Every stream has a clock of its own; with --lockstep all streams get their tokens at the same moment, as from an engine
that computes one batch after the other.

    python benchmarks/engine_stand_in.py --port 9000 --rate 20 --tokens 40
"""

from __future__ import annotations

import asyncio
import json
import math
from typing import cast

import click
import uvloop

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
HEALTHY = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


class Stream(asyncio.Protocol):
    """One connection. `rate` is in tokens a second; 0 sends them all at once."""

    def __init__(self, rate: float, tokens: int, lockstep: bool) -> None:
        self._rate = rate
        self._tokens = tokens
        self._lockstep = lockstep
        self._received = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._loop = asyncio.get_running_loop()

    def connection_lost(self, error: Exception | None) -> None:
        if self._timer:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if not found or len(body) < int(fields.get(b"content-length", 0)):
            return
        self._received = b""
        if head.startswith(b"GET"):
            self._transport.write(HEALTHY)
            return
        lines = head.split(b"\r\n")
        given = next((line[14:] for line in lines if line.lower().startswith(b"x-request-id: ")), b"none")
        if b'"stream":true' not in body:
            self._transport.write(_whole(given.decode()))
            return
        self._id = given.decode()
        self._transport.write(HEAD + self._chunk({"role": "assistant", "content": ""}))
        self._sent, self._start = 0, self._loop.time()
        if self._rate == 0:
            for _ in range(self._tokens):
                self._token()
        else:
            self._next()

    def _next(self) -> None:
        at = self._start + self._sent / self._rate
        if self._lockstep:
            at = math.ceil(at * self._rate) / self._rate
        self._timer = self._loop.call_at(at, self._token)

    def _token(self) -> None:
        self._sent += 1
        self._transport.write(self._chunk({"content": f" word{self._sent}"}))
        if self._sent == self._tokens:
            self._transport.write(self._chunk({}, "stop") + _framed(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        elif self._rate:
            self._next()

    def _chunk(self, delta: dict[str, str], finish: str | None = None) -> bytes:
        chunk = {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": 1767312000,
            "model": "/models/0123456789abcdef",
            "system_fingerprint": "",
            "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
        }
        return _framed(b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n")


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _whole(given: str) -> bytes:
    message = {"role": "assistant", "content": "word"}
    body = json.dumps({"id": given, "model": "m", "choices": [{"index": 0, "message": message}]}).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


@click.command(help=__doc__.split("\n")[0])
@click.option("--port", type=int, required=True)
@click.option("--rate", default=20.0, show_default=True, help="Tokens a second for each stream; 0 for all at once.")
@click.option("--tokens", default=40, show_default=True)
@click.option("--lockstep", is_flag=True)
def main(port: int, rate: float, tokens: int, lockstep: bool) -> None:
    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Stream(rate, tokens, lockstep), "127.0.0.1", port, backlog=2048)
        await server.serve_forever()

    uvloop.run(serve())


if __name__ == "__main__":
    main()
