"""What is known to go wrong with a prompt, found before a model is asked: rules with an id, a line and a reason."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator

import msgspec

from tunegate.prompts import phrases
from tunegate.prompts.render import undeclared_names, used_names
from tunegate.prompts.template import Section, Template

_FENCED = "\ufffc"  # stands for what is between fences
_TAG = re.compile(r"\{#.*?#\}|\{%-?(?P<block>.*?)-?%\}|\{\{-?(?P<value>.*?)-?\}\}", re.DOTALL)
_FILTERED = re.compile(r"\{%-?\s*filter\s+fence\b.*?%\}.*?\{%-?\s*endfilter\s*-?%\}", re.DOTALL)
_OPENING = re.compile(
    r"^[ \t]*(?P<mark>'{3,}|\"{3,}|#{3,}|`{3,}|~{3,}|-{3,})[^\n]*\n|<(?P<tag>[a-z][\w-]*)>",
    re.MULTILINE | re.IGNORECASE,
)
_END = re.compile(r"[.?!](?=\s|$)|[。？！]|\n[ \t]*\n")
_LABEL_AND_VALUE = re.compile(r"(?:\w+\s?[:：]\s*)?\{\{-?[^{}]*\}\}")


class Finding(msgspec.Struct, frozen=True):
    """line: of the template's file, from 1."""

    rule: str
    line: int
    reason: str


class View(msgspec.Struct, frozen=True):
    """A message as a model would read it, but for its values: the task filled in, fenced parts as one character."""

    section: Section
    text: str

    def line(self, at: int) -> int:
        return self.section.line + self.text.count("\n", 0, at)

    def sentences(self) -> Iterator[tuple[int, str]]:
        """Each sentence, which may go over several lines, and where it begins."""
        ends = [0, *(end.end() for end in _END.finditer(self.text)), len(self.text)]
        for start, end in itertools.pairwise(ends):
            yield start, self.text[start:end]


def lint(template: Template) -> list[Finding]:
    """All that the rules find, by line."""
    views = [_view(template, section) for section in template.sections if section.role != "examples"]
    found = [
        Finding(rule, line, reason)
        for rule, find in RULES.items()
        for line, reason in sorted(set(find(template, views)))
    ]
    return sorted(found, key=lambda finding: finding.line)


def _view(template: Template, section: Section) -> View:
    def replaced(tag: re.Match[str]) -> str:
        lines = "\n" * tag[0].count("\n")
        value = (tag["value"] or "").strip()
        if value == "task":
            return " ".join(template.head.task.split()) + lines
        return (_FENCED if re.search(r"\|\s*fence\b", value) else "") + lines

    def one(span: re.Match[str]) -> str:
        return _FENCED + "\n" * span[0].count("\n")

    return View(section, _without_fenced(_TAG.sub(replaced, _FILTERED.sub(one, section.text))))


def _without_fenced(text: str) -> str:
    """The text with one character in place of each part that the author has put between two marks or tags."""
    kept, at = [], 0
    unclosed: set[str] = set()  # what has no second one, and is not looked for again
    while opening := _OPENING.search(text, at):
        tag, mark = opening["tag"], opening["mark"]
        pattern = rf"</{re.escape(tag)}>" if tag else rf"^[ \t]*{re.escape(mark)}[ \t]*$"
        begins, ends = opening.end(), opening.end()
        if pattern not in unclosed:
            if closing := re.compile(pattern, re.MULTILINE | re.IGNORECASE).search(text, opening.end()):
                begins, ends = opening.start(), closing.end()
            else:
                unclosed.add(pattern)
        kept.append(text[at:begins])
        if ends > begins:
            kept.append(_FENCED + "\n" * text.count("\n", begins, ends))
        at = ends
    return "".join([*kept, text[at:]])


_Found = Iterator[tuple[int, str]]
Rule = Callable[[Template, list[View]], _Found]


def vague_length(_: Template, views: list[View]) -> _Found:
    for view in views:
        for found in phrases.VAGUE_LENGTH.finditer(view.text):
            yield view.line(found.start()), f"{found[0]!r} says no length; give numbers, such as 3 to 5 sentences"
        for start, sentence in view.sentences():
            if (work := phrases.WORK.search(sentence)) and not phrases.NUMBER.search(sentence):
                line = view.line(start + work.start())
                yield line, f"{work[0]!r} may be of any length; say of how many lines or words"


def no_fence(template: Template, views: list[View]) -> _Found:
    for view in views:
        yield from _open_values(template, view.section)
        for found in phrases.CONTENT_FOLLOWS.finditer(view.text):
            if _FENCED not in view.text and "{{" not in view.section.text:
                yield (
                    view.line(found.start()),
                    f"after {found[0]!r} nothing tells the instruction and the content apart; put the content between "
                    "two lines such as '''",
                )


def _open_values(template: Template, section: Section) -> _Found:
    """Where a value that somebody else has written stands in the text as it is.

    A message of the user that is nothing but such a value needs no fence: its role is one.
    """
    if section.role == "user" and _LABEL_AND_VALUE.fullmatch(section.text):
        return
    open_names = {name for name, variable in template.head.variables.items() if variable.needs_fence}
    text = _FILTERED.sub(lambda span: "\n" * span[0].count("\n"), section.text)
    for tag in _TAG.finditer(text):
        words = tag["value"] or tag["block"] or ""
        if re.search(r"\|\s*(?:fence|length|count)\b", words):
            continue
        names = sorted(open_names & set(re.findall(r"(?<![.\w])[A-Za-z]\w*", words)))
        assigned = re.match(r"\s*(?:for\s+(.+?)\s+in\s|set\s+(\w+)\s*=)", words)
        if names and assigned and tag["block"]:
            open_names |= set(re.findall(r"\w+", assigned[1] or assigned[2]))
        elif names and tag["value"]:
            line = section.line + text.count("\n", 0, tag.start())
            yield line, f"{names[0]} may hold instructions of whoever wrote it; write {{{{ {names[0]} | fence }}}}"


def no_format(template: Template, views: list[View]) -> _Found:
    text = "\n".join(view.text for view in views)
    if template.head.output.format == "json":
        if "json" not in text.casefold() and "schema" not in used_names(template):
            yield (
                template.lines["output"],
                "the output is JSON, and the text does not say so; ask for JSON, with its keys",
            )
    elif not phrases.FORMAT.search(text):
        for view in views:
            for found in phrases.SEVERAL_PARTS.finditer(view.text):
                yield (
                    view.line(found.start()),
                    "several things of several parts are asked for in no format; name one, such as JSON with keys",
                )


def no_role(_: Template, views: list[View]) -> _Found:
    if any(view.section.role == "system" or phrases.ROLE.search(view.text) for view in views):
        return
    for view in views:
        for found in phrases.SERVICE.finditer(view.text):
            yield view.line(found.start()), f"nobody says who is to {found[0]!r}; begin with --- system and a role"


def no_steps(template: Template, _: list[View]) -> _Found:
    for pair in template.head.examples.pairs if template.head.examples else ():
        numbers = re.findall(r"\d+", pair.user)
        shown = re.findall(r"\d+", pair.assistant)
        if len(numbers) > 1 and phrases.AMOUNT_ASKED.search(pair.user) and len(shown) == 1 and shown[0] not in numbers:
            yield template.lines["examples"], f"the example's answer is {shown[0]} with no way to it; write the steps"


def unused_variable(template: Template, _: list[View]) -> _Found:
    used = used_names(template)
    examples = template.head.examples
    by = {examples.by} if examples else set()
    for name in template.head.variables:
        if name not in used | by:
            yield template.lines[f"variables.{name}"], f"{name} is declared, and no text uses it; take it out"
    if template.head.task and "task" not in used:
        yield template.lines["task"], "the task is declared, and no text says {{ task }}"
    if examples and "examples" not in used | {section.role for section in template.sections}:
        yield template.lines["examples"], "no text shows the examples; write a line --- examples"


def missing_variable(template: Template, _: list[View]) -> _Found:
    for name, line in undeclared_names(template).items():
        yield line, f"{name} is used, and not declared under variables"


def looks_like_data(template: Template, views: list[View]) -> _Found:
    for view in views:
        if found := phrases.CONTACT.search(view.text):
            yield view.line(found.start()), "this looks like somebody's data; take it as a variable, in a fence"
        turns = list(phrases.TURN.finditer(view.text))
        if len(turns) > 1:
            yield view.line(turns[0].start()), "this looks like a dialogue; give it as pairs under examples"
        found = phrases.JSON_OBJECT.search(view.text)
        if found and template.head.output.format != "json":
            yield view.line(found.start()), "this looks like a record; take it as a variable, in a fence"
        rows = [(line.count("|"), line.count("\t"), len(re.findall(r",(?! )", line))) for line in view.text.split("\n")]
        for i, row in enumerate(rows[:-2]):
            if max(row) > 1 and row == rows[i + 1] == rows[i + 2] and (i == 0 or rows[i - 1] != row):
                yield view.section.line + i, "this looks like a table; take it as a variable, in a fence"


RULES: dict[str, Rule] = {
    "vague-length": vague_length,
    "no-fence": no_fence,
    "no-format": no_format,
    "no-role": no_role,
    "no-steps": no_steps,
    "unused-variable": unused_variable,
    "missing-variable": missing_variable,
    "looks-like-data": looks_like_data,
}
