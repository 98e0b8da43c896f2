"""minijinja as templates use it: strict, with an end to every loop, and errors that name file and line."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from minijinja import Environment, TemplateError

from tunegate.api.errors import PromptError

FUEL = 100_000  # instructions; a loop over 500 search results takes a tenth
_GLOBALS = frozenset({"range", "dict", "namespace"})
_REMEDIES = {
    "OutOfFuel": "it loops too long; let it loop over less",
    "SyntaxError": "correct the tag there",
    "TemplateNotFound": "include a file of the template's folder by its plain name in quotes",
    "UndefinedError": "declare it under variables in the front matter, or correct its name",
}
Filter = Callable[..., str]


def names_in(text: str, line: int, parts: Mapping[str, str], source: str) -> set[str]:
    """The names that `text`, which begins at `line` of `source`, takes from outside. Raises PromptError."""
    try:
        return _environment(parts, {}).undeclared_variables_in_str(text) - _GLOBALS
    except TemplateError as error:
        raise _explained(error, line, source) from None


def fill(
    text: str,
    line: int,
    parts: Mapping[str, str],
    source: str,
    values: Mapping[str, Any],
    filters: Mapping[str, Filter],
) -> str:
    """`text`, which begins at `line` of `source`, with `values` in it. Raises PromptError."""
    try:
        return str(_environment(parts, filters).render_str(text, **values))
    except TemplateError as error:
        raise _explained(error, line, source) from None
    except ValueError as error:  # a filter's own
        raise PromptError(f"{source}:{line}: {error}.") from None


def _environment(parts: Mapping[str, str], filters: Mapping[str, Filter]) -> Environment:
    env = Environment(
        templates=dict(parts),
        filters=dict(filters),
        fuel=FUEL,
        undefined_behavior="strict",
        auto_escape_callback=lambda name: False,  # prompts are text, also in parts called *.html
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.remove_global("debug")
    return env


def _explained(error: TemplateError, line: int, source: str) -> PromptError:
    where = f"{source}:{line + (error.line or 1) - 1}"
    reason, remedy = error.detail or error.message.partition(" (in ")[0], _REMEDIES.get(error.kind, "correct it there")
    # What failed in an included file has no object of its own, only lines at the end of the text.
    if causes := re.findall(r"^caused by: .*?: (.*) \(in (.+):(\d+)\)$", str(error), re.MULTILINE):
        reason, part, inner = causes[-1]
        where, remedy = f"{part}:{inner} (included in {where})", "correct it there"
    return PromptError(f"{where}: {reason}; {remedy}.")
