from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from tunegate.agent.tools import Source as Found
from tunegate.serving.events import ApiError, Ask, Cited, Event, Finished, Source, Sources, Text, bad_request
from tunegate.serving.grounding import checked, fitted, shown

SOURCES = Sources((Source(1, "Kettles", "kettles.csv", 0.9), Source(2, "Returns", "help.md", 0.8)))
FOUND = [Found("A", "x" * 400, "a.md", line=3, score=2.5, number=number) for number in (1, 2, 3)]


def written(*pieces: Event) -> list[Event]:
    async def events() -> AsyncIterator[Event]:
        yield SOURCES
        for piece in pieces:
            yield piece

    async def collect() -> list[Event]:
        return [event async for event in checked(events())]

    return asyncio.run(collect())[1:]


def test_a_citation_follows_its_text_and_one_of_nothing_is_dropped() -> None:
    events = written(Text("Quiet ["), Text("1] and cheap [7]"), Text("."), Finished("stop"))

    assert "".join(event.delta for event in events if isinstance(event, Text)) == "Quiet [1] and cheap."
    assert [event for event in events if isinstance(event, Cited)] == [Cited(SOURCES.sources[0], 6, 9)]
    assert events[-1] == Finished("stop", cited=(1,))


def test_what_was_held_back_comes_before_the_end() -> None:
    assert written(Text("See [2"), Finished("length")) == [Text("See"), Text(" [2"), Finished("length", cited=())]


def test_thoughts_are_not_looked_at() -> None:
    assert written(Text("[9]", reasoning=True), Finished("stop"))[0] == Text("[9]", reasoning=True)


def test_a_source_says_where_it_is_and_how_it_begins() -> None:
    assert shown(FOUND[0]) == Source(1, "A", "a.md", 2.5, "x" * 299 + "…", None, 3)


@pytest.mark.parametrize(("room", "kept"), [(3, 3), (2, 2), (0, 1)])
def test_the_model_is_shown_what_its_context_holds(room: int, kept: int) -> None:
    def ask_with(found: Sequence[Found]) -> Ask:
        return Ask("m", [{"role": "user", "content": str(len(found))}])

    def check(ask: Ask) -> None:
        if int(ask.messages[0]["content"]) > room:
            raise bad_request("too long", "messages", "context_length_exceeded")

    assert fitted(FOUND, ask_with, check) == kept
    assert fitted([], ask_with, check) == 0


def test_another_refusal_is_the_clients() -> None:
    def check(ask: Ask) -> None:
        raise bad_request("no such field", "x")

    with pytest.raises(ApiError, match="no such field"):
        fitted(FOUND, lambda found: Ask("m"), check)
