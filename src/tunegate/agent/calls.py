"""Tools asked for by OpenAI's tool calls: the engine's own parser has read them, and a model may ask several at once.

Steps, limits and answers are those of the loop of thoughts and actions, and so are its events.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Literal

from tunegate.agent.react import answer_of
from tunegate.agent.steps import (
    LIMITS,
    WORDS,
    Answered,
    Call,
    Clock,
    Progress,
    Reply,
    Taken,
    ToolCall,
    conversation,
    observed,
    take,
)
from tunegate.agent.tools import Language, Tool, find
from tunegate.api.versions import Limits
from tunegate.prompts import Message, Template, load_template, render
from tunegate.prompts.fence import break_up
from tunegate.prompts.render import Count

Choice = Literal["auto", "none"]
_WORDS: dict[Language, dict[str, str]] = {
    "en": {
        "arguments": "The arguments of {0} can't be read ({1}); write JSON such as {2}.",
        "format": "Call a tool, or answer the question.",
        "last": "Call no tool any more. Answer the question from what is known by now.",
    },
    "zh": {
        "arguments": "无法读取{0}的参数（{1}）；请写成JSON，例如{2}。",
        "format": "请调用工具，或者回答问题。",
        "last": "不要再调用工具。请根据目前已知的信息回答问题。",
    },
}


Model = Callable[[Sequence[dict[str, Any]], Sequence[dict[str, Any]], Choice], Awaitable[Reply]]
"""Messages, tools and `tool_choice`, as OpenAI's protocol has them."""


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
    """The steps that the model takes, then its answer, as `loop.ask`.

    template: one with the variable `question`. Raises PromptError for another, and whatever the model raises.
    """
    words, schemas = _WORDS[language], [tool.schema(language) for tool in tools]
    made, values = template or load_template(f"tools-{language}"), {"question": question}
    asked = render(made, values, nonce=nonce, control_tokens=control_tokens, count=count)
    messages = [_message(message.role, message.content) for message in conversation(before, asked)]
    progress = Progress(clock())
    while (reason := progress.limit(limits, clock())) is None:
        reply = await model(messages, schemas, "auto")
        progress.tokens += reply.tokens
        text = answer_of(reply.text)
        if text and not reply.calls:
            yield progress.answered(text, "answer")
            return
        if not reply.calls:
            progress.malformed += 1
            messages.append(_message("user", words["format"]))
            continue
        calls = [_call(call, "" if i else text, tools, words) for i, call in enumerate(reply.calls)]
        taken = await take(calls[: limits.steps - progress.steps], tools, progress, language, clock)
        said = [observed(step, nonce, language, control_tokens) for step in taken]
        said += [WORDS[language]["left out"]] * (len(calls) - len(said))
        messages.append(_turn(text, reply.calls, calls, tools, control_tokens))
        messages += [_result(call, content) for call, content in zip(reply.calls, said, strict=True)]
        for step in taken:
            yield step
    reply = await model([*messages, _message("user", words["last"])], schemas, "none")
    progress.tokens += reply.tokens
    yield progress.answered(answer_of(reply.text) or WORDS[language]["no answer"], reason)


def _message(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


def _result(call: ToolCall, content: str) -> dict[str, Any]:
    return {**_message("tool", content), "tool_call_id": call.id}


def _call(call: ToolCall, thought: str, tools: Sequence[Tool], words: dict[str, str]) -> Call:
    """What is asked of which tool, or what is wrong with the arguments."""
    tool = find(tools, call.name)
    if tool is None:
        return Call(call.name, call.arguments, thought)
    example = json.dumps({tool.takes[0]: "..."})
    try:
        value = json.loads(call.arguments)
    except (ValueError, RecursionError) as error:
        problem = words["arguments"].format(call.name, str(error)[:80], example)
        return Call(call.name, call.arguments, thought, problem=problem)
    if isinstance(value, dict):
        value = value.get(tool.takes[0], next(iter(value.values())) if len(value) == 1 else None)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        problem = words["arguments"].format(call.name, tool.takes[0], example)
        return Call(call.name, call.arguments, thought, problem=problem)
    return Call(call.name, str(value), thought)


def _turn(
    text: str, calls: Sequence[ToolCall], read: Sequence[Call], tools: Sequence[Tool], control_tokens: Sequence[str]
) -> dict[str, Any]:
    """What the model said, as engines take it back: vLLM refuses a conversation whose arguments are no JSON object."""
    made = []
    for call, asked in zip(calls, read, strict=True):
        tool = find(tools, call.name)
        arguments = {tool.takes[0] if tool else "input": break_up(asked.input, control_tokens)}
        function = {"name": call.name, "arguments": json.dumps(arguments, ensure_ascii=False)}
        made.append({"id": call.id, "type": "function", "function": function})
    return {"role": "assistant", "content": break_up(text, control_tokens), "tool_calls": made}
