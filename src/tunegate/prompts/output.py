"""What an answer is to be: free text, text with a result after a phrase, or JSON of a schema."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any, Literal

import jsonschema
import referencing
from jsonschema.exceptions import SchemaError

from tunegate.api.codec import Resource
from tunegate.api.errors import PromptError

_BROKEN = re.compile(r"\{.*\}|\[.*\]", re.DOTALL)
_BRACKETS = 2000  # in what is repaired; more of them, nested, take seconds
_TRIES = 100  # brackets that may begin JSON; an answer of nothing else would take seconds


class Output(Resource, frozen=True, kw_only=True, rename=None, omit_defaults=True):
    """schema: the JSON Schema that a JSON answer keeps. after: the phrase that the result of a text answer follows."""

    format: Literal["text", "json"] = "text"
    schema: dict[str, Any] | None = None
    after: str = ""

    def __post_init__(self) -> None:
        if self.schema is not None and self.format != "json":
            raise ValueError("a schema needs format: json")
        if self.after and self.format != "text":
            raise ValueError("after needs format: text")
        if self.schema is not None:
            try:
                jsonschema.Draft202012Validator.check_schema(self.schema)
            except SchemaError as error:
                raise ValueError(f"the schema is no JSON Schema: {error.message}") from None


def read_answer(answer: str, output: Output) -> Any:
    """The value of an answer: what its JSON says, the text after the last `after`, or the answer itself.

    JSON is found also between words or in a code block; quotes, commas and the like that a model left out or put in are
    repaired where a schema says what is right. Raises PromptError when there is none, or none of the schema.
    """
    text = answer.rpartition("</think>")[2].strip()
    if output.format == "text":
        _, found, result = text.rpartition(output.after) if output.after else ("", "all", text)
        if not found:
            raise PromptError(f"The answer does not say {output.after!r}; show in an example how it ends.")
        return result.strip(" \n:：.。")
    problem = "it holds no JSON"
    for i, value in enumerate(itertools.chain(_values(text), _repaired(text, output.schema))):
        wrong = misfits(value, output.schema)
        if not wrong:
            return value
        problem = wrong[0] if i == 0 else problem
    raise PromptError(
        f"The answer is not the JSON that is asked for: {problem}; show such an answer in an example, and ask again."
    )


def misfits(value: Any, schema: dict[str, Any] | None) -> list[str]:
    """What is wrong with `value`, each with its place in it; nothing when it keeps the schema."""
    if schema is None:
        return []
    # A registry without a way to retrieve: a $ref to some URL is never fetched.
    validator = jsonschema.Draft202012Validator(schema, registry=referencing.Registry())
    try:
        return [f"at {error.json_path}, {error.message}" for error in validator.iter_errors(value)]
    except referencing.exceptions.Unresolvable as error:
        raise PromptError(f"The schema refers to {error.ref}, which is not in it; put it under $defs.") from None


def _values(text: str) -> Iterator[Any]:
    """Every JSON object or list in `text` that is not within another one."""
    decoder = json.JSONDecoder(parse_constant=_refuse)
    at = tries = 0
    while (start := re.compile(r"[{\[]").search(text, at)) and tries < _TRIES:
        tries += 1
        try:
            value, at = decoder.raw_decode(text, start.start())
        except ValueError:
            at = start.end()
        except RecursionError:
            return
        else:
            yield value


def _repaired(text: str, schema: dict[str, Any] | None) -> Iterator[Any]:
    """The value of nearly JSON, where a schema can tell that it is right. What was cut off is not made up."""
    broken = _BROKEN.search(text)
    if schema is None or broken is None or len(re.findall(r"[{\[]", broken[0])) > _BRACKETS:
        return
    import json_repair  # which most answers do without

    try:
        value = json_repair.loads(broken[0])
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return
    yield value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
