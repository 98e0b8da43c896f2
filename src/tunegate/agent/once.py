"""One search before one answer: what is found for a question goes into the prompt, and the model is asked once.

By the prompt for web results, or by that for a knowledge base. Where a knowledge base holds nothing, its fixed sentence
is the answer, and no model is asked.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from datetime import date
from typing import Any

from tunegate.agent.loop import Model
from tunegate.agent.steps import Answered, Call, Clock, Progress, Taken, cited, conversation, take
from tunegate.agent.tools import Language, Tool
from tunegate.knowledge.words import is_chinese
from tunegate.prompts import Message, Template, load_template, render
from tunegate.prompts.render import Count

_NAMES: dict[Language, tuple[str, str]] = {"en": ("English", "Chinese"), "zh": ("英文", "中文")}


def prompt(
    taken: Taken,
    *,
    today: date,
    nonce: str,
    language: Language = "en",
    template: Template | None = None,
    control_tokens: Sequence[str] = (),
    count: Count | None = None,
) -> tuple[Message, ...]:
    """The messages that ask for an answer from what was found.

    template: by default `search-en` or `search-zh` with its five variables for a search, `knowledge-en` or -`zh` for
    all else; one's own may leave out the day and the language. control_tokens, count: as for `render`. Raises
    PromptError for one of other variables.
    """
    if taken.tool == "search":
        given: dict[str, Any] = {"web_results": taken.observation, "current_date": today, "query": taken.input}
    else:
        given = {"sources": taken.observation, "question": taken.input}
    made = template or load_template(f"{'search' if taken.tool == 'search' else 'knowledge'}-{language}")
    variables = made.head.variables
    if "reply_language" in variables:
        names = [_NAMES[each][is_chinese(taken.input)] for each in (language, *_NAMES)]
        choices = variables["reply_language"].choices
        given["reply_language"] = next((name for name in names if name in choices), names[0])
    if "current_date" not in variables:
        given.pop("current_date", None)
    return render(made, given, nonce=nonce, control_tokens=control_tokens, count=count)


async def ask(
    question: str,
    tool: Tool,
    model: Model,
    *,
    today: date,
    nonce: str,
    language: Language = "en",
    template: Template | None = None,
    before: Sequence[Message] = (),
    control_tokens: Sequence[str] = (),
    count: Count | None = None,
    clock: Clock = time.monotonic,
) -> AsyncIterator[Taken | Answered]:
    """What the tool finds, then the answer. before: a system message and earlier turns. Raises what the model does."""
    (taken,) = await take([Call(tool.function, question)], [tool], Progress(clock()), language, clock)
    yield taken
    if not taken.sources and tool.function != "search":
        yield Answered(taken.observation, "not found", 1, 0)
        return
    how: dict[str, Any] = {"language": language, "template": template, "control_tokens": control_tokens}
    reply = await model(conversation(before, prompt(taken, today=today, nonce=nonce, count=count, **how)))
    yield Answered(cited(reply.text, len(taken.sources)), "answer", 1, reply.tokens)
