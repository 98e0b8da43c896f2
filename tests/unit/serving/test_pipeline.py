from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.serving.standin import TOKENS, embedded
from tunegate.serving.events import ApiError
from tunegate.serving.features import ANY, TRANSFORMERS, TRANSFORMERS_ALONE, VLLM
from tunegate.serving.limits import Embedded, Sampling
from tunegate.serving.pipeline import Rules, prepare
from tunegate.serving.protocols import completions
from tunegate.serving.protocols.openai import read
from tunegate.serving.tokens import Tokens, read_tokens

ASK = [{"role": "user", "content": "hello"}]


def rules(engine: Embedded | None = None, **fields: Any) -> Rules:
    features = TRANSFORMERS if engine else ANY
    return Rules("shop", "/models/x", embedded=engine, features=features, **fields)


def asked(rules: Rules, **fields: Any) -> dict[str, Any]:
    """What the engine is asked when a client asks so."""
    request = prepare(read(json.dumps({"model": "shop", "messages": ASK, **fields}).encode()), rules)
    body: dict[str, Any] = json.loads(request.body)
    return body


def test_an_engine_of_its_own_mind_gets_all_fields() -> None:
    fields = {"temperature": 0.3, "n": 2, "response_format": {"type": "json_object"}, "user": "u", "top_k": 5}

    assert asked(rules(), **fields) == {"model": "/models/x", "messages": ASK, **fields}


def test_the_embedded_engine_gets_only_what_it_knows() -> None:
    fields = {"user": "u", "metadata": {}, "store": True, "stream_options": {"include_usage": True}, "seed": 1, "n": 1}
    fields |= {"stop": None, "response_format": {"type": "text"}, "temperature": 0, "top_p": 0.5, "max_tokens": 3}

    assert asked(rules(embedded()), stream=True, **fields) == {
        "model": "/models/x",
        "messages": ASK,
        "stream": True,
        "max_tokens": 3,
        "generation_config": '{"do_sample":false}',
    }


@pytest.mark.parametrize(
    ("field", "value"), [("best_of", 3), ("suffix", "!"), ("functions", [{"name": "f"}]), ("verbosity", "low")]
)
def test_what_vllm_would_take_without_effect_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ApiError, match=field):
        asked(replace(rules(), features=VLLM), **{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 2),
        ("stop", [""]),
        ("stop", ["x"] * 17),
        ("response_format", {"type": "json_schema"}),
        ("tools", [{"type": "function"}]),
        ("logprobs", True),
        ("logit_bias", {"1": 5}),
        ("presence_penalty", 1),
        ("temperature", 2.5),
        ("temperature", "hot"),
        ("top_p", True),
        ("top_k", 1.5),
        ("repetition_penalty", 0),
        ("best_of", 3),
        ("generation_config", "{}"),
        ("messages", [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]),
        ("messages", [{"role": "user"}]),
        ("messages", [{"content": "hi"}]),
        ("messages", [{"role": "user", "content": 5}]),
        ("max_tokens", 0),
        ("max_tokens", "many"),
        ("max_tokens", True),
        ("max_tokens", 1.5),
    ],
)
def test_what_the_embedded_engine_cannot_honor_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ApiError) as caught:
        asked(rules(embedded()), **{field: value})

    assert (caught.value.status, caught.value.param, caught.value.reason) == (400, field, "request")


def generation(rules: Rules, **fields: Any) -> dict[str, Any]:
    """The generation configuration that comes of it."""
    found: dict[str, Any] = json.loads(asked(rules, **fields)["generation_config"])
    return found


def test_a_request_may_be_drawn_in_its_own_way() -> None:
    release = {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "eos_token_id": 2}
    drawn = rules(Embedded(Sampling(0.7, 0.9), 100, len, release))

    assert generation(drawn) == release
    assert generation(drawn, temperature=1.2, seed=3) == {**release, "temperature": 1.2, "seed": 3}
    assert generation(drawn, top_p=0.5, top_k=-1) == {**release, "top_p": 0.5, "top_k": 0}
    assert generation(drawn, temperature=0, top_p=0.5, seed=3) == {"do_sample": False, "eos_token_id": 2}


def test_a_seed_is_harmless_where_nothing_is_drawn_and_kept_where_it_is_honored() -> None:
    drawn = Embedded(Sampling(0.7), 100, len)

    assert "seed" not in generation(rules(embedded()), seed=7)
    assert generation(rules(drawn), seed=7)["seed"] == 7
    with pytest.raises(ApiError, match="can't do seed"):
        asked(Rules("shop", "/models/x", embedded=drawn, features=TRANSFORMERS_ALONE), seed=7)


@pytest.mark.parametrize("fields", [{"top_k": 5, "stop": ["x"], "n": 2, "structured_outputs": {}}, {"stop": []}])
def test_vllm_gets_what_it_honors(fields: dict[str, Any]) -> None:
    assert asked(Rules("shop", "x", features=VLLM), **fields) == {"model": "x", "messages": ASK, **fields}


@pytest.mark.parametrize("name", ["documents", "generation_config", "temprature"])
def test_vllm_is_not_asked_what_it_would_silently_drop(name: str) -> None:
    with pytest.raises(ApiError, match=name) as caught:
        asked(Rules("shop", "x", features=VLLM), **{name: []})
    assert caught.value.param == name


@pytest.mark.parametrize("engine", [None, embedded()])
@pytest.mark.parametrize("field", [{"response_format": {"type": "json_object"}}, {"tools": [{}]}])
def test_a_prompt_goes_without_what_is_a_chats(engine: Embedded | None, field: dict[str, Any]) -> None:
    body = json.dumps({"model": "shop", "prompt": "Once", **field}).encode()
    with pytest.raises(ApiError, match=f"{next(iter(field))} goes with messages"):
        prepare(completions.read(body), rules(engine))


@pytest.mark.parametrize("prompt", [[1, 99, 100], [[1], [-1]], [1.5], [["a", None]], [True]])
def test_tokens_of_another_model_are_refused(prompt: Any) -> None:
    body = json.dumps({"model": "shop", "prompt": prompt}).encode()
    with pytest.raises(ApiError, match="prompt"):
        prepare(completions.read(body), rules(tokens=TOKENS))
    assert prepare(completions.read(b'{"model":"shop","prompt":[[1,99],[2]]}'), rules(tokens=TOKENS)).passed


def test_the_ids_of_a_folder_are_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"vocab_size": 9, "eos_token_id": 1, "bos_token_id": null}')
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [2, 3]}')

    assert read_tokens(tmp_path) == Tokens(9, {"eos_token_id": (2, 3)})


def test_what_chat_interfaces_send_unasked_is_harmless() -> None:
    unasked = {"presence_penalty": 0, "frequency_penalty": 0.0, "n": 1, "logprobs": False, "tools": [], "top_p": 1}
    assert asked(rules(embedded()), stream=True, temperature=0, **unasked)["max_tokens"]


def test_the_systems_prompt_stands_first_unless_the_client_brings_one() -> None:
    brief = rules(system_prompt="Be brief.")
    own = [{"role": "system", "content": "Be verbose."}, *ASK]

    assert asked(brief)["messages"] == [{"role": "system", "content": "Be brief."}, *ASK]
    assert asked(brief, messages=own)["messages"] == own
    assert asked(rules())["messages"] == ASK


def test_the_releases_defaults_fill_what_is_left_open() -> None:
    given = rules(defaults={"max_tokens": 50, "temperature": 0.2})

    assert asked(given)["max_tokens"] == 50
    assert asked(given)["temperature"] == 0.2
    assert asked(given, temperature=1)["temperature"] == 1
    assert "max_tokens" not in asked(given, max_completion_tokens=7)


def test_the_embedded_engine_knows_one_word_for_the_length() -> None:
    assert asked(rules(embedded(), defaults={"max_tokens": 5}))["max_tokens"] == 5
    assert asked(rules(embedded()), max_completion_tokens=7)["max_tokens"] == 7
    assert asked(rules(embedded()), max_completion_tokens=7, max_tokens=8)["max_tokens"] == 7


def test_a_length_left_open_is_cut_to_what_fits() -> None:
    assert 1 <= asked(rules(embedded(200)))["max_tokens"] < 200


def test_what_would_outgrow_the_cache_is_refused() -> None:
    long = [{"role": "user", "content": "word " * 950}]

    for fields in ({"messages": long}, {"max_tokens": 990}):
        with pytest.raises(ApiError, match="must fit 1000 tokens") as caught:
            asked(rules(embedded(1000)), **fields)
        assert caught.value.code == "context_length_exceeded"


def test_tokens_are_counted_only_where_bytes_leave_it_open() -> None:
    counted: list[int] = []

    def count(texts: Any) -> int:
        counted.append(len(texts))
        return 1

    engine = Embedded(Sampling(0.0), 1000, count)
    asked(rules(engine), max_tokens=10)
    assert counted == []
    asked(rules(engine), max_tokens=10, messages=[{"role": "user", "content": "夏" * 400}])
    assert len(counted) == 1
