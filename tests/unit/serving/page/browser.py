"""What the tests of the playground share: an engine that writes what a test gives it, and ways to the page."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tests.unit.serving.standin import WAIT, Server, StandIn, in_thread

if TYPE_CHECKING:
    from playwright.sync_api import Page

Opener = Callable[..., AbstractContextManager["Page"]]


@dataclass
class Writer(StandIn):
    """An engine that streams `deltas`, each a text or a whole delta, or answers with the status `refusal`."""

    deltas: list[Any] = field(default_factory=lambda: ["Hello."])
    finish: str = "stop"
    own_ids: bool = True

    async def chat(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(await request.json())
        if self.refusal:
            return web.json_response({"error": {"message": "no"}}, status=self.refusal)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        try:
            for delta in self.deltas:
                while delta is WAIT and not self.go_on.is_set():
                    await asyncio.sleep(0.005)
                if delta is not WAIT:
                    await response.write(self._chunk("x", {"content": delta} if isinstance(delta, str) else delta))
            await response.write(self._chunk("x", {}, self.finish) + b"data: [DONE]\n\n")
        except (ConnectionError, asyncio.CancelledError):
            self.ended.set()
            raise
        return response


@contextmanager
def relay(server: Server) -> Iterator[tuple[str, Callable[[], None]]]:
    """A second way to the server, as an URL, and what cuts it."""
    writers: list[asyncio.StreamWriter] = []
    where: list[Any] = []

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                writer.write(data)
        writer.close()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
        await asyncio.gather(pipe(reader, back), pipe(there, writer))

    async def main(stop: asyncio.Event, started: Callable[[], None]) -> None:
        listening = await asyncio.start_server(carry, "127.0.0.1", 0)
        where.extend([asyncio.get_running_loop(), listening.sockets[0].getsockname()[1]])
        started()
        await stop.wait()
        listening.close()
        cut()

    def cut() -> None:
        for writer in writers:
            writer.transport.abort()

    end = in_thread(main)
    loop, port = where
    try:
        yield f"http://127.0.0.1:{port}", lambda: loop.call_soon_threadsafe(cut)
    finally:
        end()


def say(page: Page, text: str = "Hi?") -> None:
    """Write a message and send it."""
    page.locator(".composer textarea").fill(text)
    page.locator(".composer .primary:enabled").wait_for()
    page.keyboard.press("Enter")


def answered(page: Page, text: str = "Hi?") -> None:
    """Send a message and wait for the end of the answer."""
    turns = page.locator(".icon.up").count()
    say(page, text)
    page.locator(".icon.up").nth(turns).wait_for()
