"""How our types become JSON and come back: camelCase, closed, with errors that name the field."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from tunegate.api.errors import UsageError

T = TypeVar("T", bound="Resource")


class Resource(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A frozen value with a JSON form. Unknown fields are refused: a misspelled bound must not vanish."""


def to_json(value: Any) -> bytes:
    """The indented UTF-8 JSON of `value`, ending in a newline."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def from_json(text: bytes | str, kind: type[T], source: str) -> T:
    """Read a `kind` from JSON; `source` names the file or key in the error.

    Raises UsageError when the text is not such a value.
    """
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError as error:
        raise UsageError(f"{source} is not a valid {kind.__name__}: {error}.") from None


def from_yaml(text: bytes | str, kind: type[T], source: str) -> T:
    """Read a `kind` from YAML; `source` names the file in the error.

    Raises UsageError when the text is not such a value.
    """
    try:
        return msgspec.yaml.decode(text, type=kind)
    except msgspec.DecodeError as error:
        raise UsageError(f"{source} is not a valid {kind.__name__}: {error}.") from None
