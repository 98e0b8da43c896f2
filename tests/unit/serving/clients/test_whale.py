"""The article's loop for Whale, with the example client of the docs, over HTTP."""

from __future__ import annotations

import json
import runpy
import urllib.request
from typing import Any

import pytest

from tests.apiserver import REPOSITORY
from tests.unit.serving.standin import MODEL, Server
from tunegate.api.traffic import WHALE_CHAT_PATH

EXAMPLE = REPOSITORY / "docs/examples/whale.py"
ARTICLE = {
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "user_token_id": 0,
    "assistant_token_id": 0,
    "max_new_tokens": 2048,
    "temperature": 0.95,
    "top_k": 5,
    "top_p": 0.7,
    "repetition_penalty": 1.1,
    "do_sample": False,
    "transformers_version": "4.29.2",
}
OURS = {name: value for name, value in ARTICLE.items() if name not in ("user_token_id", "assistant_token_id")}


@pytest.fixture
def generation(server: Server) -> Any:
    generation = runpy.run_path(str(EXAMPLE))["TextGeneration"]
    generation.set_api_key("api_key", base_url=server.url)
    return generation


def printed(response: Any) -> list[str]:
    """What the article's loop prints."""
    lines = []
    for event in response:
        if event.status_code == 200:
            if event.finished is False:
                lines.append(event.output["response"])
        else:
            lines.append(f"error_code: [{event.status_code}], error_message: [{event.status_message}]")
    return lines


def call(generation: Any, text: str = "content_info", streaming: bool = True, **config: Any) -> Any:
    prompt = json.dumps([{"role": "user", "content": text}])
    return generation.call(
        model=MODEL, prompt=prompt, timeout=120, streaming=streaming, generate_config={**OURS, **config}
    )


def test_the_articles_loop_prints_the_answer(generation: Any, server: Server) -> None:
    assert "".join(printed(call(generation))) == 'a "model":"/models/x@main" 夏'
    (asked,) = server.engine.asked
    assert (asked["max_tokens"], asked["temperature"], asked["repetition_penalty"]) == (2048, 0, 1.1)
    assert not {"top_k", "top_p", "generate_config"} & set(asked)


def test_a_header_tells_what_changes_nothing(server: Server) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "generate_config": OURS}
    request = urllib.request.Request(server.url + WHALE_CHAT_PATH, json.dumps(body).encode())

    with urllib.request.urlopen(request, timeout=100) as response:
        assert response.headers["x-tunegate-notice"] == (
            "generate_config.do_sample is false, so these change nothing: temperature, top_k, top_p."
        )


def test_the_whole_answer_is_one_event(generation: Any) -> None:
    (event,) = call(generation, streaming=False)

    assert (event.status_code, event.finished, event.output) == (200, True, {"response": "Blue."})


def test_another_models_token_ids_are_refused_with_the_right_ones(generation: Any, server: Server) -> None:
    (line,) = printed(call(generation, **ARTICLE))

    assert line.startswith("error_code: [400], error_message: [generate_config.user_token_id is another model's: ")
    assert "pad_token_id 0, bos_token_id 1, eos_token_id 2 or 7" in line
    assert not server.engine.asked


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"eos_token_id": 151645}, "generate_config.eos_token_id"),
        ({"eos_token_id": [2, 3]}, "generate_config.eos_token_id"),
        ({"eos_token_id": True}, "generate_config.eos_token_id"),
        ({"eos_token_id": [[2]]}, "generate_config.eos_token_id"),
        ({"eos_token_id": {}}, "generate_config.eos_token_id"),
        ({"num_beams": 4, "length_penalty": 1}, "generate_config.length_penalty, generate_config.num_beams"),
        ({"do_sample": "no"}, "generate_config.do_sample"),
    ],
)
def test_what_is_not_known_is_refused_by_name(generation: Any, config: dict[str, Any], said: str) -> None:
    (line,) = printed(call(generation, **config))
    assert line.startswith("error_code: [400]")
    assert said in line


def test_an_engine_that_fails_ends_the_loop_with_an_error(generation: Any) -> None:
    assert printed(call(generation, "break off"))[-1].startswith("error_code: [500], error_message: [The engine")


def test_the_example_is_short() -> None:
    assert len(EXAMPLE.read_text().splitlines()) <= 60
