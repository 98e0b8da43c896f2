"""How a release answers that is more than weights: its prompt, what its knowledge has, and an answer from that.

It knows no HTTP: the engine is given, and so are the parts.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tunegate.agent.knowledge import source
from tunegate.agent.tools import Language, Source
from tunegate.api.errors import KnowledgeError, PromptError
from tunegate.knowledge.evidence import NOT_FOUND
from tunegate.knowledge.words import is_chinese
from tunegate.prompts import Template
from tunegate.serving.agents import answer_with_tools
from tunegate.serving.conversation import Conversation, read_conversation
from tunegate.serving.events import ApiError, Ask, Asking, Event, Finished, Sources, Text, bad_request
from tunegate.serving.features import LENGTHS
from tunegate.serving.grounding import checked, fitted, given_to_model, shown
from tunegate.serving.parts import Parts

if TYPE_CHECKING:  # bm25s and scipy, which only an index needs
    from tunegate.knowledge.index import Found

logger = logging.getLogger(__name__)
SOURCES = 5
_NO_TOKENS = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
_ONCE = ("n", "logprobs", "top_logprobs")


@dataclass(frozen=True)
class Engine:
    """The model, as far as this needs to know it.

    check: raises ApiError for what it can't be asked, without asking it. ask: its events, as soon as it has taken the
    question, and ApiError where it doesn't.
    """

    check: Callable[[Ask], object]
    ask: Asking


async def answer_from_parts(ask: Ask, parts: Parts, engine: Engine) -> AsyncGenerator[Event]:
    """The events of an answer; the last is Finished. Raises ApiError.

    Where the knowledge has no answer, a fixed sentence says so, and the model isn't asked.
    """
    check(ask)
    talk = read_conversation(ask.messages)
    language: Language = "zh" if is_chinese(talk.question) else "en"
    try:
        if parts.tools:
            async with aclosing(answer_with_tools(ask, talk, language, parts, engine.ask)) as steps:
                async for event in checked(steps):
                    yield event
            return
        found = await _search(talk, parts)
        if found and not found.is_answerable:
            yield Sources(())
            yield Text(NOT_FOUND[language])
            yield Finished("stop", _NO_TOKENS)
            return
        grounded, given = _grounded(ask, talk, language, found, parts, engine)
    except KnowledgeError as error:
        logger.error("knowledge failed", extra={"reason": str(error)})  # noqa: TRY400 - it is told in a sentence
        message = "The knowledge of this version can't be searched now; ask again in a moment."
        raise ApiError(503, message, reason="unavailable") from None
    except PromptError as error:
        logger.error("prompt failed", extra={"reason": str(error)})  # noqa: TRY400 - it is told in a sentence
        message = "The prompt of this version can't be made for this question; the server's log says why."
        raise ApiError(500, message, reason="internal") from None
    async with engine.ask(grounded) as events:
        answered = _after(given, events)
        # lists of numbers in JSON cite nothing
        async for event in answered if grounded.fields.get("response_format") else checked(answered):
            yield event


async def _after(given: Sequence[Source], events: AsyncIterator[Event]) -> AsyncIterator[Event]:
    """The events of an answer from what it is given."""
    if given:
        yield Sources(tuple(map(shown, given)))
    async for event in events:
        yield event


def check(ask: Ask) -> None:
    """Raises ApiError 400 for what can't be asked where more than the weights answers."""
    for name in _ONCE:
        if ask.fields.get(name) not in (None, 1 if name == "n" else 0):
            message = f"{name}: the version served answers from its own prompts, once to a request; leave it out."
            raise bad_request(message, name, "unsupported_parameter")


async def _search(talk: Conversation, parts: Parts) -> Found | None:
    """What the knowledge has for the question or, unless that surely answers it, for it with the one before."""
    if parts.index is None:
        return None
    for query in talk.queries:
        found = await asyncio.to_thread(parts.index.search, query, SOURCES)
        if found.is_answerable and found.evidence is not None:
            break
    return found


def _grounded(
    ask: Ask, talk: Conversation, language: Language, found: Found | None, parts: Parts, engine: Engine
) -> tuple[Ask, Sequence[Source]]:
    """What the model is asked, and what of that which was found it is shown: as much as its context holds."""
    template = parts.templates.get(language)
    nonce, today = secrets.token_hex(4), datetime.now(UTC).date()
    if template is None:
        return ask, ()

    def ask_with(given: Sequence[Source]) -> Ask:
        values = {"question": talk.question, "current_date": today, **given_to_model(given)}
        prompt = parts.prompt(template, values, nonce)
        messages = talk.under(prompt, parts.control_tokens)
        return replace(ask, messages=messages, fields=_fields(ask, template), native=False)

    given = [source(hit) for hit in found.hits] if found else []
    given = given[: fitted(given, ask_with, engine.check)]
    return ask_with(given), given


def _fields(ask: Ask, template: Template) -> dict[str, Any]:
    """What the client asks for and, where it leaves that open, what the prompt says of the answer's length and form."""
    limits, output, fields = template.head.limits, template.head.output, dict(ask.fields)
    if limits.max_tokens and not any(fields.get(name) for name in LENGTHS):
        fields["max_tokens"] = limits.max_tokens
    if limits.stop:
        stops = fields.get("stop") or []
        fields["stop"] = [*([stops] if isinstance(stops, str) else stops), *limits.stop]
    if output.format == "json" and not fields.get("response_format"):
        named = {"name": "answer", "strict": True, "schema": output.schema or {"type": "object"}}
        fields["response_format"] = {"type": "json_schema", "json_schema": named}
    return fields
