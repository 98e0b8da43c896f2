"""How our types become JSON and come back: camelCase, closed, with errors that name the field."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from types import UnionType
from typing import Any, ClassVar, TypeVar, get_args, get_type_hints

import msgspec

from tunegate.api.errors import UsageError

T = TypeVar("T", bound="Resource")
D = TypeVar("D", bound="Document")


class Resource(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A frozen value with a JSON form. Unknown fields are refused: a misspelled bound must not vanish."""


class Document(Resource, frozen=True, kw_only=True, dict=True):
    """A resource that tunegate itself writes and keeps, so an older tunegate may read what a newer one wrote.

    Fields that a newer minor version added are ignored at any depth; those at the top are kept and written again. A
    newer major version is refused. `from_json` and `from_yaml` read it so; nowhere else is it lenient.

    added: fields that came later; with their defaults they aren't written, so what was written before stays the same.
    """

    added: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def upgraded(cls, plain: dict[str, Any]) -> dict[str, Any]:
        """What an earlier version of tunegate wrote, in today's fields."""
        return plain

    @property
    def unknown(self) -> dict[str, Any]:
        """The fields at the top that this version of tunegate does not know."""
        found: dict[str, Any] = self.__dict__.get("unknown", {})
        return found


def prepare(*kinds: type) -> None:
    """Make what msgspec knows of these types, and of those within them, now: modules call it for what threads read.

    It makes that when it first reads one, and a second thread that reads one meanwhile crashes the process (0.22).
    """
    for kind in kinds:
        msgspec.json.Decoder(kind)


def to_json(value: Any) -> bytes:
    """The indented UTF-8 JSON of `value`, ending in a newline."""
    return msgspec.json.format(msgspec.json.encode(_with_unknown(value)), indent=2) + b"\n"


def to_json_lines(values: Sequence[Any]) -> bytes:
    """JSON lines, each ending in a newline; nothing of no values."""
    return msgspec.json.Encoder().encode_lines(values)


def to_yaml(value: Any) -> bytes:
    return msgspec.yaml.encode(_with_unknown(value))


def changed(document: D, **changes: Any) -> D:
    """A copy with other values, which keeps what is unknown of `document`."""
    copy = msgspec.structs.replace(document, **changes)
    copy.__dict__["unknown"] = document.unknown
    return copy


def from_json(text: bytes | str, kind: type[T], source: str) -> T:
    """Read a `kind` from JSON; `source` names the file or key in the error.

    Raises UsageError when the text is not such a value.
    """
    return _read(msgspec.json.decode, text, kind, source)


def from_yaml(text: bytes | str, kind: type[T], source: str) -> T:
    """Read a `kind` from YAML; `source` names the file in the error.

    Raises UsageError when the text is not such a value.
    """
    return _read(msgspec.yaml.decode, text, kind, source)


def _read(decode: Callable[..., Any], text: bytes | str, kind: type[T], source: str) -> T:
    try:
        try:
            value: T = decode(text, type=kind)
        except msgspec.ValidationError:
            if not issubclass(kind, Document):
                raise
            # Rare, so that today's documents are read at full speed.
            return _lenient(decode(text, type=dict[str, Any]), kind, source)
    except msgspec.DecodeError as error:
        raise UsageError(f"{source} is not a valid {kind.__name__}: {error}.") from None
    return value


def _lenient(plain: dict[str, Any], kind: type[T], source: str) -> T:
    assert issubclass(kind, Document)
    plain = kind.upgraded(plain)
    known = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    unknown = {name: value for name, value in plain.items() if name not in known}
    if "schema" in known and (schema := plain.get("schema", ours := known["schema"].default)) != ours:
        if not isinstance(schema, str) or not (version := re.fullmatch(r"(.+)/v(\d+)(?:\.\d+)?", schema)):
            raise UsageError(f"{source} has the schema {schema!r}; a {kind.__name__} has {ours}.")
        name, major = ours.rsplit("/v", 1)
        if version[1] != name or int(version[2]) < int(major):
            raise UsageError(f"{source} has the schema {schema}; a {kind.__name__} has {ours}.")
        if int(version[2]) > int(major):
            raise UsageError(
                f"{source} was written by a newer tunegate, as {schema}; upgrade tunegate, which reads {ours}."
            )
        unknown["schema"], plain = schema, {**plain, "schema": ours}
    value = msgspec.convert(_only_known(plain, kind), kind)
    value.__dict__["unknown"] = unknown
    return value


def _only_known(plain: Any, kind: Any) -> Any:
    """`plain` without the fields that the structs in `kind` don't have."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and isinstance(plain, dict):
        hints = get_type_hints(kind)
        fields = {field.encode_name: hints[field.name] for field in msgspec.structs.fields(kind)}
        return {name: _only_known(value, fields[name]) for name, value in plain.items() if name in fields}
    if isinstance(plain, list):
        return [_only_known(item, inner) for item in plain for inner in get_args(kind)[:1] or [Any]]
    if isinstance(kind, UnionType):
        structs = [inner for inner in get_args(kind) if isinstance(inner, type) and issubclass(inner, msgspec.Struct)]
        return _only_known(plain, structs[0]) if structs else plain
    return plain


def _with_unknown(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_with_unknown(item) for item in value]
    if isinstance(value, Document) and (value.unknown or value.added):
        plain = msgspec.to_builtins(value)
        for field in msgspec.structs.fields(value):
            if field.name in value.added and getattr(value, field.name) == field.default:
                del plain[field.encode_name]
        return {**plain, **value.unknown}
    return value
