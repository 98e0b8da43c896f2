"""A template file: YAML front matter, then the text of its messages.

    ---
    description: Sell a product.
    variables:
      product: {type: text, description: What is sold.}
    ---
    --- system
    You are a professional shopping guide.
    --- user
    Sell me this: {{ product | fence }}

A line `--- ROLE` begins a message; a text without such lines is one message of the user. `--- examples` stands where
the few-shot pairs go. Each message is a template of its own, so that no value can begin another one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import yaml
from msgspec import Meta

from tunegate.api.codec import Resource
from tunegate.api.digest import Digest
from tunegate.api.errors import PromptError
from tunegate.prompts import engine
from tunegate.prompts.fence import find_control_token
from tunegate.prompts.output import Output
from tunegate.prompts.variables import Variable

ROLES = ("system", "user", "assistant", "examples")
GIVEN = ("task", "examples", "schema")  # names that a text may use besides its variables
_ROLE_LINE = re.compile(r"--- +([^\s|]\S*) *")
_Count = Annotated[int, Meta(ge=1)]


class Pair(Resource, frozen=True, kw_only=True, rename=None):
    """One example: what a user says, and the answer to it."""

    user: str
    assistant: str


class Examples(Resource, frozen=True, kw_only=True, rename=None, omit_defaults=True):
    """Few-shot pairs, of which those are shown that are most similar to the variable `by`.

    most: at most so many. tokens: at most so many tokens in all of them together.
    """

    pairs: Annotated[tuple[Pair, ...], Meta(min_length=1)]
    by: str | None = None
    most: _Count = 3
    tokens: _Count | None = None


class Limits(Resource, frozen=True, kw_only=True, rename=None, omit_defaults=True):
    """max_tokens: the longest answer. prompt_tokens: the longest prompt. stop: where the answer is cut off."""

    max_tokens: _Count | None = None
    prompt_tokens: _Count | None = None
    stop: tuple[str, ...] = ()


class Head(Resource, frozen=True, kw_only=True, rename=None, omit_defaults=True):
    """The front matter. task: what is asked, for texts that say it before and after the data."""

    description: str = ""
    task: str = ""
    variables: dict[str, Variable] = {}
    examples: Examples | None = None
    output: Output = Output()
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        for name in self.variables:
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) or name in GIVEN:
                raise ValueError(f"{name!r} can't be the name of a variable; take letters, and none of {GIVEN}")
        by = self.examples and self.examples.by
        if by and (by not in self.variables or self.variables[by].type != "text"):
            raise ValueError(f"examples are chosen by {by!r}, which is no variable of type text")


class Section(msgspec.Struct, frozen=True):
    """One message as it is written. line: of the file, where `text` begins, from 1."""

    role: str
    text: str
    line: int


class Template(msgspec.Struct, frozen=True):
    """source: the file it is from, for errors. parts: files that its text includes, by the names it uses.

    lines: where the fields of the front matter stand, such as `task` and `variables.query`.
    """

    source: str
    head: Head
    sections: tuple[Section, ...]
    parts: dict[str, str] = {}
    lines: dict[str, int] = {}

    @property
    def digest(self) -> str:
        """What names its content: the same for equal templates, wherever they are and however their YAML is written."""
        texts = [(section.role, section.text) for section in self.sections]
        return str(Digest.of_bytes(msgspec.json.encode((self.head, texts, self.parts), order="deterministic")))


def parse_template(text: str, source: str, parts: Mapping[str, str] | None = None) -> Template:
    """Read a template file. Raises PromptError naming file and line."""
    lines = text.replace("\r\n", "\n").split("\n")
    start, head = 0, Head()
    fields: dict[str, int] = {}
    if lines[0].rstrip() == "---":
        start = next((i for i, line in enumerate(lines[1:], 2) if line.rstrip() == "---"), 0)
        if not start:
            raise PromptError(f"{source}:1: the front matter does not end; write a line --- after it.")
        head, fields = _parse_head("\n".join(lines[1 : start - 1]), source)
    sections = _split(lines[start:], start + 1, source)
    template = Template(source, head, sections, dict(parts or {}), fields)
    _check(template)
    return template


def _split(lines: list[str], first: int, source: str) -> tuple[Section, ...]:
    """The messages in the lines after the front matter, the first of which has the number `first`."""
    marks = [(i, found[1]) for i, line in enumerate(lines) if (found := _ROLE_LINE.fullmatch(line))]
    if not marks:
        marks = [(-1, "user")]
    if before := [i for i in range(marks[0][0]) if lines[i].strip()]:
        raise PromptError(f"{source}:{first + before[0]}: this text has no role; write a line such as --- user above.")
    sections = []
    for (i, role), end in zip(marks, [*(i for i, _ in marks[1:]), len(lines)], strict=True):
        if role not in ROLES:
            raise PromptError(f"{source}:{first + i}: {role!r} is no role; the roles are {', '.join(ROLES)}.")
        text = lines[i + 1 : end]
        blank = next((n for n, line in enumerate(text) if line.strip()), 0)
        sections.append(Section(role, "\n".join(text).strip(), first + i + 1 + blank))
    return tuple(sections)


def _parse_head(text: str, source: str) -> tuple[Head, dict[str, int]]:
    """The front matter, and the lines of the file that its fields stand in."""
    try:
        plain = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 2 if error.problem_mark else 1
        raise PromptError(
            f"{source}:{line}: the front matter is no YAML: {error.problem}; correct that line."
        ) from None
    except (yaml.YAMLError, ValueError) as error:  # characters that YAML refuses, a date that is none
        reason = str(error).splitlines()[0]
        raise PromptError(f"{source}:1: the front matter is no YAML: {reason}; correct it.") from None
    try:
        head = msgspec.convert({} if plain is None else plain, Head)
    except msgspec.ValidationError as error:
        message = _with_name(str(error), plain)
        line = _line_of(yaml.compose(text), message) + 2
        raise PromptError(
            f"{source}:{line}: the front matter can't be used: {message}; correct the field that it names."
        ) from None
    names, node = [*(plain or {}), *(f"variables.{name}" for name in head.variables)], yaml.compose(text)
    return head, {name: _line_of(node, f"at `$.{name}`") + 2 for name in names}


def _with_name(message: str, plain: dict[str, Any]) -> str:
    """The message with the name of the variable that it is about, where msgspec writes `[...]`."""
    if "$.variables[...]" in message:
        for name, variable in plain["variables"].items():
            try:
                msgspec.convert(variable, Variable)
            except msgspec.ValidationError:
                return message.replace("[...]", f".{name}")
    return message


def _line_of(node: yaml.Node | None, message: str) -> int:
    """The line, from 0, of what a message such as "... unknown field `rol` - at `$.limits`" is about."""
    path = re.search(r"at `\$(\S*)`$", message)
    unknown = re.search(r"unknown field `(.+?)`", message)
    line = 0
    for key in re.findall(r"\w+", path[1] if path else "") + ([unknown[1]] if unknown else []):
        if isinstance(node, yaml.SequenceNode):
            node = node.value[int(key)]
            line = node.start_mark.line
            continue
        for name, value in node.value if isinstance(node, yaml.MappingNode) else ():
            if name.value == key:
                node, line = value, name.start_mark.line
    return line


def _check(template: Template) -> None:
    """What the parts must be together."""
    source, sections = template.source, template.sections
    for section in sections:
        where = f"{source}:{section.line}"
        if bool(section.text) == (section.role == "examples"):
            wrong = "the pairs stand in the front matter; take the text out" if section.text else "write its text"
            raise PromptError(f"{where}: the message of the {section.role} can't be so; {wrong}.")
        if found := find_control_token(section.text):
            where = f"{source}:{section.line + section.text.count(chr(10), 0, found.start())}"
            raise PromptError(
                f"{where}: {found[0]} is a control token of chat templates; begin messages with --- ROLE."
            )
        engine.names_in(section.text, section.line, template.parts, source)
    roles = [section.role for section in sections]
    if roles[-1] != "user":
        raise PromptError(f"{source}:{sections[-1].line}: the last message is not the user's; end with --- user.")
    if "system" in roles[1:]:
        line = sections[roles.index("system", 1)].line
        raise PromptError(f"{source}:{line}: the system message does not come first; move it to the top.")
    if "examples" in roles and template.head.examples is None:
        line = sections[roles.index("examples")].line
        raise PromptError(f"{source}:{line}: there are no examples; give their pairs in the front matter.")
