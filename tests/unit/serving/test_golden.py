"""Transcripts replayed without HTTP: from a client's bytes and an engine's to those that the client gets."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.unit.serving.golden import Transcript, names, transcript
from tests.unit.serving.releases import opened
from tests.unit.serving.standin import MODEL
from tunegate.serving.assistant import Engine, answer_from_parts
from tunegate.serving.events import ApiError, Ask, Event
from tunegate.serving.parts import Parts
from tunegate.serving.pipeline import Rules, answer, prepare
from tunegate.serving.protocols import BY_PATH, error_body
from tunegate.serving.protocols.engine import EngineStream
from tunegate.serving.protocols.passthrough import Rewriter


def answered(given: Transcript, size: int) -> tuple[int, bytes]:
    """The status and body for a request, with an engine that speaks in pieces of `size` bytes."""
    protocol, stream = BY_PATH[given.path], EngineStream()
    try:
        ask = protocol.read(given.body, given.headers)
        passed = prepare(ask, Rules(MODEL, "/models/x")).passed
    except ApiError as error:
        return error.status, error_body(given.path, error, "ID")
    if passed:
        rewriter = Rewriter({"id": "ID", "model": MODEL})
        pieces = (given.engine[at : at + size] for at in range(0, len(given.engine), size))
        return 200, b"".join([*map(rewriter.feed, pieces), rewriter.end()])
    writer = protocol.writer(ask, "ID", MODEL, 1)
    written, events = [writer.start()], list[Event]()

    def take(new: Iterable[Event]) -> None:
        for event in new:
            events.append(event)
            written.append(writer.write(event))

    try:
        for at in range(0, len(given.engine), size):
            take(stream.feed(given.engine[at : at + size]))
        take(stream.end())
    except ApiError as error:
        return 200, b"".join([*written, writer.failure(error)])
    return 200, b"".join(written) if ask.stream else protocol.writer(ask, "ID", MODEL, 1).whole(events)


async def answered_from(parts: Parts, given: Transcript, size: int) -> bytes:
    """The body for a request to a release with parts."""
    rules, protocol = Rules(MODEL, "/models/x", searches=parts.searches), BY_PATH[given.path]
    says = given.engine.split(b"\n----- again\n")

    @asynccontextmanager
    async def ask(asked: Ask) -> AsyncIterator[AsyncIterator[Event]]:
        request, said = prepare(asked, rules), says.pop(0)

        async def pieces() -> AsyncIterator[bytes]:
            for at in range(0, len(said), size):
                yield said[at : at + size]

        yield answer(pieces(), request.stops)

    asked = protocol.read(given.body, given.headers)
    engine = Engine(lambda again: prepare(again, rules), ask)
    events = [event async for event in answer_from_parts(asked, parts, engine)]
    writer = protocol.writer(asked, "ID", MODEL, 1)
    body = b"".join([writer.start(), *map(writer.write, events)]) if asked.stream else writer.whole(events)
    return re.sub(rb'"seconds":[0-9.e-]+', b'"seconds":0', body)


@pytest.mark.parametrize("size", [1, 100_000])
@pytest.mark.parametrize("name", [*names("parts"), *names("tools")])
def test_a_transcript_of_a_release_is_replayed_byte_for_byte(name: str, size: int, shop_index: Path) -> None:
    given = transcript(name)
    parts = opened(index=shop_index, tools=("calculator", "knowledge") if name.startswith("tools") else ())

    assert asyncio.run(answered_from(parts, given, size)).decode() == given.answer.decode()


@pytest.mark.parametrize("size", [1, 50, 100_000])
@pytest.mark.parametrize("name", names())
def test_a_transcript_is_replayed_byte_for_byte(name: str, size: int) -> None:
    given = transcript(name)

    status, body = answered(given, size)
    assert body.decode() == given.answer.decode()
    assert status == given.status
