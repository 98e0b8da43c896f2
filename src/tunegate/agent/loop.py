"""Thought, action, input, observation: one step after the other, within limits, until the model answers.

There is always an answer. Where a limit is reached, or the model can't keep to the format or to the tools that there
are, it is asked once more, for an answer from what it knows by then.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from tunegate.agent.react import Answer, Malformed, Step, parse
from tunegate.agent.steps import (
    LIMITS,
    WORDS,
    Answered,
    Call,
    Clock,
    Progress,
    Reply,
    Taken,
    conversation,
    observed,
    take,
)
from tunegate.agent.tools import Language, Tool
from tunegate.api.versions import Limits
from tunegate.prompts import Message, Template, load_template, render
from tunegate.prompts.fence import break_up
from tunegate.prompts.render import Count

_WORDS: dict[Language, dict[str, str]] = {
    "en": {
        "observation": "Observation: {0}",
        "format": "Write either Action: and Input:, or Final Result:, each on a line of its own.",
        "last": "Use no tool any more. Write Final Result: and the answer, from what is known by now.",
    },
    "zh": {
        "observation": "观察：{0}",
        "format": "请写出“行动：”和“输入：”，或者“最终结果：”，各占一行。",
        "last": "不要再使用工具。请根据目前已知的信息，写出“最终结果：”和答案。",
    },
}


Model = Callable[[Sequence[Message]], Awaitable[Reply]]


async def ask(
    question: str,
    tools: Sequence[Tool],
    model: Model,
    *,
    nonce: str,
    language: Language = "en",
    template: Template | None = None,
    before: Sequence[Message] = (),
    control_tokens: Sequence[str] = (),
    count: Count | None = None,
    limits: Limits = LIMITS,
    clock: Clock = time.monotonic,
) -> AsyncIterator[Taken | Answered]:
    """The steps that the model takes, then its answer.

    template: one with the variable `question`, and `tools` unless it lists them itself; by default the one that comes
    with tunegate. before: a system message and earlier turns. control_tokens, count: as for `render`.
    Raises PromptError for a template of other variables, and whatever the model raises.
    """
    words, made = _WORDS[language], template or load_template(f"react-{language}")
    listed = {"tools": described(tools, language)} if "tools" in made.head.variables else {}
    values = {"question": question, **listed}
    messages = conversation(before, render(made, values, nonce=nonce, control_tokens=control_tokens, count=count))
    progress = Progress(clock())
    while (reason := progress.limit(limits, clock())) is None:
        reply = await model(messages)
        progress.tokens += reply.tokens
        move = parse(reply.text)
        if isinstance(move, Answer):
            yield progress.answered(move.text, "answer")
            return
        written = break_up(move.text, control_tokens)
        if isinstance(move, Malformed):
            progress.malformed += 1
            messages += _said(written or "...", words["format"])
            continue
        call = Call(move.tool, move.input or question, move.thought, move.discarded)
        (taken,) = await take([call], tools, progress, language, clock)
        messages += turn(written, observed(taken, nonce, language, control_tokens), language)
        yield taken
    reply = await model([*messages, Message("user", words["last"])])
    progress.tokens += reply.tokens
    move = parse(reply.text)
    text = (move.thought if isinstance(move, Step) else "") or move.text
    yield progress.answered(text or WORDS[language]["no answer"], reason)


def described(tools: Sequence[Tool], language: Language) -> list[dict[str, str]]:
    """Tools as templates take them."""
    return [{"name": tool.name(language), "description": tool.description(language)} for tool in tools]


def turn(text: str, observation: str, language: Language) -> list[Message]:
    """What the model wrote to take a step, and what it is told of it: as `observed` makes it."""
    return _said(text, _WORDS[language]["observation"].format(observation))


def _said(model: str, reply: str) -> list[Message]:
    return [Message("assistant", model), Message("user", reply)]
