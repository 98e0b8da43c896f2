"""JSON by a schema from an engine that constrains nothing: the model is told, and its answer checked, at most twice.

Such an answer reaches its client whole, as nobody can take back what was streamed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunegate.api.errors import PromptError
from tunegate.prompts.output import Output, misfits, read_answer
from tunegate.serving.events import ApiError, bad_request

_FIELD = "response_format"
_SLOW = frozenset({"pattern", "patternProperties"})  # a pattern may take for ever, and with it all other answers


@dataclass(frozen=True)
class Format:
    """The JSON that an answer is to be."""

    schema: dict[str, Any]

    def instruct(self, messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The messages with the schema at the end of the system prompt, or as one."""
        schema = json.dumps(self.schema, ensure_ascii=False)
        text = f"Answer with JSON alone, without any words around it, that keeps this JSON Schema:\n{schema}"
        if messages[0]["role"] == "system" and isinstance(messages[0].get("content"), str):
            return [{**messages[0], "content": f"{messages[0]['content']}\n\n{text}"}, *messages[1:]]
        return [{"role": "system", "content": text}, *messages]

    def read(self, answer: str) -> str:
        """The JSON in an answer, without what is around it. Raises PromptError that says what is wrong."""
        try:
            value = read_answer(answer, Output(format="json", schema=self.schema))
        except RecursionError:
            raise PromptError("The answer is not the JSON that is asked for: it is nested too deeply.") from None
        return json.dumps(value, ensure_ascii=False)


def read_format(request: Mapping[str, Any]) -> Format | None:
    """What `response_format` of a request says; None for free text. Raises ApiError 400."""
    asked = request.get(_FIELD, {"type": "text"})
    kind = asked.get("type") if isinstance(asked, dict) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return Format({"type": "object"})
    named = asked.get("json_schema") if isinstance(asked, dict) and kind == "json_schema" else None
    schema = named.get("schema") if isinstance(named, dict) else None
    if not isinstance(schema, dict):
        message = 'response_format must be {"type": "json_object"}, or "json_schema" with a json_schema.schema.'
        raise bad_request(message, _FIELD, "invalid_value")
    try:
        if _SLOW & _keys(schema):
            raise bad_request("The engine of this server checks no patterns; take them out of the schema.", _FIELD)
        Output(format="json", schema=schema)
        misfits({}, schema)  # follows its references
    except (ValueError, PromptError, RecursionError) as error:
        reason = "it refers to itself" if isinstance(error, RecursionError) else str(error)
        raise bad_request(f"response_format: this schema can't be used: {reason}", _FIELD, "invalid_value") from None
    return Format(schema)


def ask_again(answer: str, problem: str) -> list[dict[str, Any]]:
    """What is added to the conversation after an answer that is not the JSON asked for."""
    return [
        {"role": "assistant", "content": answer},
        {"role": "user", "content": f"{problem} Answer again with JSON alone that keeps the schema."},
    ]


def failure(problem: str) -> ApiError:
    """What the client is told when the second answer is not it either."""
    return ApiError(502, f"{problem} It was asked for twice; ask again, or simplify the schema.", reason="engine")


def _keys(value: Any) -> set[str]:
    """All keys in a schema, at any depth."""
    if isinstance(value, dict):
        return set(value) | {key for inner in value.values() for key in _keys(inner)}
    return {key for inner in value for key in _keys(inner)} if isinstance(value, list) else set()
