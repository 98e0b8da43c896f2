"""A template and values in, messages out: every value of its type, data fenced, no control token in any text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from tunegate.api.errors import PromptError
from tunegate.prompts import engine
from tunegate.prompts.examples import choose
from tunegate.prompts.fence import break_up, fence
from tunegate.prompts.template import GIVEN, Pair, Template
from tunegate.prompts.variables import complete

Count = Callable[[str], int]  # the tokens of a text


class Message(msgspec.Struct, frozen=True):
    """As every chat API takes it."""

    role: str
    content: str


def render(
    template: Template,
    given: Mapping[str, Any],
    *,
    nonce: str,
    count: Count | None = None,
    control_tokens: Sequence[str] = (),
) -> tuple[Message, ...]:
    """The messages of `template` with the values that are given.

    nonce: 4 to 32 letters and digits for the fences, random for each request. count: the tokens of a text, needed where
    examples have a budget. control_tokens: those of the model's tokenizer, besides the well-known ones.
    Raises PromptError that names all missing and wrong values at once, or the line of the template that fails.
    """
    values = {**_values(template, given), "task": template.head.task}
    pairs = _examples(template, values, count)
    values["examples"] = [msgspec.to_builtins(pair) for pair in pairs]
    values["schema"] = json.dumps(template.head.output.schema or {}, ensure_ascii=False)

    def fenced(value: Any, mark: str = "") -> str:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1)
        return fence(text, nonce, mark)

    messages: list[Message] = []
    for section in template.sections:
        if section.role == "examples":
            messages += [Message(role, getattr(pair, role)) for pair in pairs for role in ("user", "assistant")]
            continue
        text = engine.fill(section.text, section.line, template.parts, template.source, values, {"fence": fenced})
        messages.append(Message(section.role, text.strip()))
    return tuple(Message(message.role, break_up(message.content, control_tokens)) for message in messages)


def used_names(template: Template) -> set[str]:
    """Every name that its messages, and what they include, take from outside."""
    texts = [(section.text, section.line) for section in template.sections]
    texts += [(part, 1) for part in template.parts.values()]
    return {name for text, line in texts for name in engine.names_in(text, line, template.parts, template.source)}


def undeclared_names(template: Template) -> dict[str, int]:
    """The names that its messages use and its front matter does not declare, with the line of their first use."""
    known = {*template.head.variables, *GIVEN}
    lines = {}
    for section in reversed(template.sections):
        for name in engine.names_in(section.text, section.line, template.parts, template.source) - known:
            used = re.search(rf"\{{[{{%][^}}]*?\b{re.escape(name)}\b", section.text)
            lines[name] = section.line + section.text.count("\n", 0, used.end() if used else 0)
    return lines


def _values(template: Template, given: Mapping[str, Any]) -> dict[str, Any]:
    values, problems = complete(template.head.variables, given)
    problems += [f"{name} (line {line}) is not declared" for name, line in sorted(undeclared_names(template).items())]
    if problems:
        raise PromptError(
            f"{template.source} can't be filled in: {'; '.join(problems)}. Its front matter says what it takes."
        )
    return values


def _examples(template: Template, values: Mapping[str, Any], count: Count | None) -> list[Pair]:
    examples = template.head.examples
    if examples is None:
        return []
    if examples.tokens is not None and count is None:
        raise PromptError(f"{template.source} has a budget of tokens for its examples; give a tokenizer to count them.")
    return choose(examples, values[examples.by] if examples.by else "", count)
