"""Thought, action, input, observation: one step after the other, within limits, until the model answers.

There is always an answer. Where a limit is reached, or the model can't keep to the format or to the tools that there
are, it is asked once more, for an answer from what it knows by then.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tunegate.agent.react import Answer, Malformed, Step, parse
from tunegate.agent.tools import Tool, find
from tunegate.api.errors import ToolError
from tunegate.prompts import Message, Template, load_template, render
from tunegate.prompts.fence import break_up, fence

Language = Literal["en", "zh"]
Reason = Literal["answer", "steps", "seconds", "tokens", "unknown tools", "format"]
_UNKNOWN_TOOLS = 3
_OBSERVATION = 4000  # characters of what a tool says
_WORDS: dict[Language, dict[str, str]] = {
    "en": {
        "observation": "Observation: {0}",
        "repeated": "This was asked before; the observation above is its result. Use it, or ask something else.",
        "unknown": "There is no tool {0}. The tools are: {1}.",
        "slow": "{0} did not answer within {1:g} seconds.",
        "format": "Write either Action: and Input:, or Final Result:, each on a line of its own.",
        "last": "Use no tool any more. Write Final Result: and the answer, from what is known by now.",
    },
    "zh": {
        "observation": "观察：{0}",
        "repeated": "这一步已经做过，结果就是上面的观察。请使用该结果，或换一个问题。",
        "unknown": "没有名为{0}的工具。可用的工具：{1}。",
        "slow": "{0}在{1:g}秒内没有回应。",
        "format": "请写出“行动：”和“输入：”，或者“最终结果：”，各占一行。",
        "last": "不要再使用工具。请根据目前已知的信息，写出“最终结果：”和答案。",
    },
}


@dataclass(frozen=True)
class Limits:
    """How far a question may go. tokens: of all of the model's texts together. seconds: after them no step begins."""

    steps: int = 6
    seconds: float = 60.0
    tokens: int = 4000


@dataclass(frozen=True)
class Reply:
    """What the model wrote, and in how many tokens."""

    text: str
    tokens: int


@dataclass(frozen=True)
class Taken:
    """A step that was taken. discarded: actions that the model wrote before it could know the observation."""

    number: int
    thought: str
    tool: str
    input: str
    observation: str
    seconds: float
    discarded: int = 0


@dataclass(frozen=True)
class Answered:
    """The end. reason: why there were no further steps."""

    text: str
    reason: Reason
    steps: int
    tokens: int


Model = Callable[[Sequence[Message]], Awaitable[Reply]]


@dataclass
class _State:
    """What has been said, and what it took."""

    messages: list[Message]
    begun: float
    steps: int = 0
    tokens: int = 0
    malformed: int = 0
    unknown: int = 0
    asked: set[tuple[str, str]] = field(default_factory=set)

    def say(self, model: str, reply: str) -> None:
        """Add what the model wrote, and what it is told."""
        self.messages += [Message("assistant", break_up(model)), Message("user", break_up(reply))]

    def limit(self, limits: Limits, now: float) -> Reason | None:
        """The limit that is reached, if any."""
        reached: list[tuple[Reason, bool]] = [
            ("steps", self.steps >= limits.steps),
            ("seconds", now - self.begun >= limits.seconds),
            ("tokens", self.tokens >= limits.tokens),
            ("unknown tools", self.unknown >= _UNKNOWN_TOOLS),
            ("format", self.malformed > 1),
        ]
        return next((reason for reason, is_reached in reached if is_reached), None)


async def ask(
    question: str,
    tools: Sequence[Tool],
    model: Model,
    *,
    nonce: str,
    language: Language = "en",
    template: Template | None = None,
    limits: Limits = Limits(),
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[Taken | Answered]:
    """The steps that the model takes, then its answer.

    template: one with the variables `tools` and `question`; by default the one that comes with tunegate. Raises
    PromptError for a template of other variables, and whatever the model raises.
    """
    words, at = _WORDS[language], 0 if language == "en" else -1
    known = [{"name": tool.names[at], "description": tool.descriptions[at]} for tool in tools]
    values = {"tools": known, "question": question}
    made = render(template or load_template(f"react-{language}"), values, nonce=nonce)
    state = _State(list(made), clock())
    while (reason := state.limit(limits, clock())) is None:
        reply = await model(state.messages)
        state.tokens += reply.tokens
        move = parse(reply.text)
        if isinstance(move, Answer):
            yield Answered(move.text, "answer", state.steps, state.tokens)
            return
        if isinstance(move, Malformed):
            state.malformed += 1
            state.say(move.text or "...", words["format"])
            continue
        taken = await _take(move, question, tools, state, words, clock)
        state.say(move.text, words["observation"].format(fence(taken.observation, nonce)))
        yield taken
    reply = await model([*state.messages, Message("user", words["last"])])
    move = parse(reply.text)
    text = (move.thought if isinstance(move, Step) else "") or move.text
    yield Answered(text, reason, state.steps, state.tokens + reply.tokens)


async def _take(
    step: Step,
    question: str,
    tools: Sequence[Tool],
    state: _State,
    words: dict[str, str],
    clock: Callable[[], float],
) -> Taken:
    """Ask the tool, and count the step. What goes wrong with it is what is observed."""
    begun = clock()
    state.steps += 1
    given = step.input or question
    tool = find(tools, step.tool)
    if tool is None:
        state.unknown += 1
        observation = words["unknown"].format(step.tool, ", ".join(name for tool in tools for name in tool.names))
    elif (tool.names[0], given) in state.asked:
        observation = words["repeated"]
    else:
        state.asked.add((tool.names[0], given))
        try:
            observation = await asyncio.wait_for(tool.call(given), tool.seconds)
        except TimeoutError:
            observation = words["slow"].format(step.tool, tool.seconds)
        except ToolError as error:
            observation = str(error)
    seconds = round(clock() - begun, 3)
    return Taken(state.steps, step.thought, step.tool, given, observation[:_OBSERVATION], seconds, step.discarded)
