"""The variables of a template: what they are, and whether values fit them."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from tunegate.api.codec import Resource


class Variable(Resource, frozen=True, kw_only=True, rename=None, omit_defaults=True):
    """choices: the only values of a text. default: its value where none is given.

    trusted: the author or operator gives it, never a user, a page or a document; so it needs no fence.
    """

    type: Literal["text", "integer", "number", "boolean", "date", "list", "object"]
    description: str
    choices: tuple[str, ...] = ()
    default: Any = msgspec.UNSET
    trusted: bool = False

    def __post_init__(self) -> None:
        if self.choices and self.type != "text":
            raise ValueError("choices belong to variables of type text")
        if self.default is not msgspec.UNSET and (problem := misfit(self, self.default)):
            raise ValueError(f"the default {problem}")

    @property
    def is_required(self) -> bool:
        """Whether it has no default."""
        return self.default is msgspec.UNSET

    @property
    def needs_fence(self) -> bool:
        """Whether its value may hold words that somebody else has written."""
        return self.type in ("text", "list", "object") and not self.choices and not self.trusted


def complete(variables: Mapping[str, Variable], given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The value of each variable, defaults filled in, and all that is wrong with what was given."""
    values, problems = {}, []
    for name, variable in variables.items():
        value = given.get(name, variable.default)
        if value is msgspec.UNSET:
            problems.append(f"{name} ({variable.type}) is missing")
        elif problem := misfit(variable, value):
            problems.append(f"{name} {problem}")
        else:
            values[name] = value.isoformat() if isinstance(value, datetime.date) else value
    problems += [f"{name} is not one of its variables" for name in given if name not in variables]
    return values, problems


def misfit(variable: Variable, value: Any) -> str:
    """What is wrong with the value, to be read after its name; empty when it fits."""
    if not _fits(variable.type, value):
        return f"is {_shown(value)}, not of type {variable.type}"
    if variable.choices and value not in variable.choices:
        return f"is {_shown(value)}, not one of {', '.join(variable.choices)}"
    return ""


def _fits(kind: str, value: Any) -> bool:
    match kind:
        case "text":
            return isinstance(value, str)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "boolean":
            return isinstance(value, bool)
        case "list":
            return isinstance(value, list | tuple)
        case "object":
            return isinstance(value, dict)
        case _ if isinstance(value, str):
            try:
                datetime.date.fromisoformat(value)
            except ValueError:
                return False
            return True
        case _:
            return isinstance(value, datetime.date) and not isinstance(value, datetime.datetime)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
