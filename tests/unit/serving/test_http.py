"""Work for a client that may go: it ends with the client, and with nothing else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tunegate.serving.http import ClientGoneError, while_connected

GONE = {"type": "http.disconnect"}


def test_work_ends_when_the_client_goes() -> None:
    async def serve() -> None:
        left, gone = asyncio.Event(), asyncio.get_running_loop().create_future()

        async def work() -> None:
            gone.set_result(GONE)
            try:
                await asyncio.Event().wait()
            finally:
                left.set()

        async def receive() -> Any:
            return await gone

        with pytest.raises(ClientGoneError):
            await while_connected(receive, work())
        assert left.is_set()
        await asyncio.sleep(0)  # nothing is left that ends the task

    asyncio.run(serve())


def test_a_client_that_goes_as_the_work_ends_stops_nothing_after_it() -> None:
    async def serve() -> None:
        for turns in range(4):
            gone = asyncio.get_running_loop().create_future()

            async def work(gone: asyncio.Future[Any] = gone, turns: int = turns) -> None:
                await asyncio.sleep(0)
                gone.set_result(GONE)
                for _ in range(turns):
                    await asyncio.sleep(0)

            async def receive(gone: asyncio.Future[Any] = gone) -> Any:
                return await gone

            try:
                await while_connected(receive, work())
            except ClientGoneError:
                assert turns > 0
            for _ in range(4):
                await asyncio.sleep(0)

    asyncio.run(serve())


def test_who_ends_the_server_ends_the_work() -> None:
    async def serve() -> None:
        async def receive() -> Any:
            await asyncio.Event().wait()

        async def work() -> None:
            await asyncio.Event().wait()

        serving = asyncio.create_task(while_connected(receive, work()))
        await asyncio.sleep(0)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving

    asyncio.run(serve())
