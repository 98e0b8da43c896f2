from __future__ import annotations

import json
from typing import Any

import pytest

from tunegate.serving.events import ApiError, Ask
from tunegate.serving.pipeline import Rules, prepare
from tunegate.serving.protocols.whale import read
from tunegate.serving.tokens import Tokens


def asked(config: Any, **fields: Any) -> Ask:
    messages = [{"role": "user", "content": "hi"}]
    return read(json.dumps({"model": "shop", "messages": messages, "generate_config": config, **fields}).encode())


def test_fields_without_effect_are_told_of() -> None:
    assert asked({"do_sample": False, "temperature": 0.95, "top_k": 5}).notes == (
        "generate_config.do_sample is false, so these change nothing: temperature, top_k.",
    )
    assert asked({"do_sample": False}).notes == ()
    assert asked({"do_sample": True, "temperature": 0.5}).fields["temperature"] == 0.5


def test_an_error_calls_the_field_as_the_client_does() -> None:
    error = ApiError(400, "max_tokens must be less.", reason="request", param="max_tokens")
    named = error.named(asked({"max_new_tokens": 5}).names)

    assert named.message == "generate_config.max_new_tokens must be less."
    assert named.param == "generate_config.max_new_tokens"


@pytest.mark.parametrize(
    ("config", "fields", "said"),
    [([1], {}, "must be an object"), ({"temperature": 1}, {"temperature": 1}, "give it once"), (5, {}, "object")],
)
def test_what_makes_no_sense_is_refused(config: Any, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ApiError, match=said):
        asked(config, **fields)


def test_ids_can_not_be_checked_where_the_engine_has_the_weights() -> None:
    with pytest.raises(ApiError, match=r"generate_config\.eos_token_id: .* leave them out"):
        prepare(asked({"eos_token_id": 2}), Rules("shop", "x"))
    assert prepare(asked({"eos_token_id": 2}), Rules("shop", "x", tokens=Tokens(9, {"eos_token_id": (2,)})))
