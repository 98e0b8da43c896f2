from __future__ import annotations

from typing import Any

import pytest

from tunegate.api.errors import PromptError
from tunegate.serving.events import ApiError
from tunegate.serving.structured import Format, read_format

USER = {"role": "user", "content": "Price?"}


def format_of(schema: Any) -> Format | None:
    asked = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    return read_format({"messages": [USER], "response_format": asked})


def test_a_request_says_what_json_it_wants() -> None:
    assert read_format({"messages": [USER]}) is None
    assert read_format({"messages": [USER], "response_format": {"type": "text"}}) is None
    assert read_format({"messages": [USER], "response_format": {"type": "json_object"}}) == Format({"type": "object"})
    assert format_of({"type": "array"}) == Format({"type": "array"})


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "thing"}, "no JSON Schema"),
        ({"$ref": "#"}, "refers to itself"),
        ({"$ref": "https://schemas.example/price.json"}, r"schemas\.example"),
        ({"properties": {"a": {"pattern": "(a+)+$"}}}, "checks no patterns"),
        ("object", "json_schema.schema"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused(schema: Any, message: str) -> None:
    with pytest.raises(ApiError, match=message) as caught:
        format_of(schema)

    assert (caught.value.status, caught.value.param) == (400, "response_format")


def test_the_model_is_told_the_schema_under_the_system_prompt() -> None:
    wanted = Format({"type": "object"})
    system = {"role": "system", "content": "Be brief."}

    (first, second) = wanted.instruct([system, USER])
    assert first["content"].startswith("Be brief.\n\nAnswer with JSON alone")
    assert second == USER
    assert [message["role"] for message in wanted.instruct([USER])] == ["system", "user"]


def test_json_is_taken_out_of_what_is_around_it() -> None:
    wanted = Format({"type": "object", "required": ["price"]})

    assert wanted.read('Here: ```json\n{"price": "二十"}\n```') == '{"price": "二十"}'
    for answer in ("It is 20.", '{"prize": 1}', "[" * 100_000):
        with pytest.raises(PromptError, match="not the JSON"):
            wanted.read(answer)
