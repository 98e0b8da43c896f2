"""From what was found to what an answer may cite, and from what the model cites to what of that holds. Pure."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

from tunegate.agent.tools import Source as Found
from tunegate.agent.tools import shown as in_words
from tunegate.knowledge.citations import Citing, feed, finish
from tunegate.serving.events import ApiError, Ask, Cited, Event, Finished, Source, Sources, Text

EXCERPT = 300  # characters of a source that clients are shown


def shown(source: Found) -> Source:
    """What was found, as it is shown and cited."""
    begin = source.text if len(source.text) <= EXCERPT else f"{source.text[: EXCERPT - 1]}…"
    return Source(source.number, source.title, source.uri, source.score, begin, source.page, source.line)


def given_to_model(found: Sequence[Found]) -> dict[str, object]:
    """The variables `knowledge` and, for templates without loops, `sources`."""
    known = [{"number": it.number, "title": it.title, "text": it.text} for it in found]
    return {"knowledge": known, "sources": in_words(found)}


def fitted(found: Sequence[Found], ask_with: Callable[[Sequence[Found]], Ask], check: Callable[[Ask], object]) -> int:
    """With how much of what was found a question fits into the model's context; one is the least. check: as `prepare`.

    Raises ApiError for what else is wrong with it.
    """
    for kept in range(len(found), 1, -1):
        try:
            check(ask_with(found[:kept]))
        except ApiError as error:
            if error.code != "context_length_exceeded":
                raise
        else:
            return kept
    return min(1, len(found))


async def checked(events: AsyncIterator[Event]) -> AsyncIterator[Event]:
    """The answer with each citation as an event after its text, and without numbers that cite nothing."""
    state, sources = Citing(0), tuple[Source, ...]()
    async for event in events:
        if isinstance(event, Sources):
            sources = event.sources
            state = replace(state, sources=len(sources))
        if sources and isinstance(event, Text) and not event.reasoning:
            before, (state, shown) = state, feed(state, event.delta)
            for new in _shown(before, state, shown, sources):
                yield new
            continue
        if sources and isinstance(event, Finished):
            before, (state, shown) = state, finish(state)
            for new in _shown(before, state, shown, sources):
                yield new
            event = replace(event, cited=state.cited)
        yield event


def _shown(before: Citing, after: Citing, text: str, sources: Sequence[Source]) -> list[Event]:
    new = after.citations[len(before.citations) :]
    cited = [Cited(sources[it.number - 1], it.start, it.end) for it in new]
    return [*([Text(text)] if text else []), *cited]
