"""From what was found to what an answer may cite, and from what the model cites to what of that holds. Pure."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

from tunegate.knowledge.citations import Citing, feed, finish
from tunegate.knowledge.documents import Chunk
from tunegate.knowledge.index import Hit
from tunegate.serving.events import ApiError, Ask, Cited, Event, Finished, Source, Text

EXCERPT = 300  # characters of a source that clients are shown


def source_of(hit: Hit) -> Source:
    """A chunk that was found, as it is shown and cited."""
    chunk = hit.chunk
    score = hit.bm25 if hit.cosine is None else hit.cosine
    return Source(hit.number, chunk.path, chunk.source, score, chunk.text[:EXCERPT], chunk.page, chunk.line)


def given_to_model(chunks: Sequence[Chunk]) -> dict[str, object]:
    """The variables `knowledge` and, for templates without loops, `sources`."""
    known = [{"number": number, "title": it.path, "text": it.text} for number, it in enumerate(chunks, 1)]
    return {"knowledge": known, "sources": "\n\n".join("[{number}] {title}\n{text}".format(**it) for it in known)}


def fitted(hits: Sequence[Hit], ask_with: Callable[[Sequence[Hit]], Ask], check: Callable[[Ask], object]) -> int:
    """With how many of the first hits a question fits into the model's context; one is the least. check: as `prepare`.

    Raises ApiError for what else is wrong with it.
    """
    for kept in range(len(hits), 1, -1):
        try:
            check(ask_with(hits[:kept]))
        except ApiError as error:
            if error.code != "context_length_exceeded":
                raise
        else:
            return kept
    return min(1, len(hits))


async def checked(events: AsyncIterator[Event], sources: Sequence[Source]) -> AsyncIterator[Event]:
    """The answer with each citation as an event after its text, and without numbers that cite nothing."""
    state = Citing(len(sources))
    async for event in events:
        if isinstance(event, Text) and not event.reasoning:
            before, (state, shown) = state, feed(state, event.delta)
            for new in _shown(before, state, shown, sources):
                yield new
            continue
        if isinstance(event, Finished):
            before, (state, shown) = state, finish(state)
            for new in _shown(before, state, shown, sources):
                yield new
            event = replace(event, cited=state.cited)
        yield event


def _shown(before: Citing, after: Citing, text: str, sources: Sequence[Source]) -> list[Event]:
    new = after.citations[len(before.citations) :]
    cited = [Cited(sources[it.number - 1], it.start, it.end) for it in new]
    return [*([Text(text)] if text else []), *cited]
