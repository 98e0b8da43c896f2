"""Transcripts replayed without HTTP: from a client's bytes and an engine's to those that the client gets."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests.unit.serving.golden import Transcript, names, transcript
from tests.unit.serving.standin import MODEL
from tunegate.serving.events import ApiError, Event
from tunegate.serving.pipeline import Rules, prepare
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


@pytest.mark.parametrize("size", [1, 50, 100_000])
@pytest.mark.parametrize("name", names())
def test_a_transcript_is_replayed_byte_for_byte(name: str, size: int) -> None:
    given = transcript(name)

    status, body = answered(given, size)
    assert body.decode() == given.answer.decode()
    assert status == given.status
