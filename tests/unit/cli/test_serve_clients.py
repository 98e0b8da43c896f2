"""The clients that people have, unmodified, on a real model behind the embedded engine."""

from __future__ import annotations

import gc
import itertools
import json
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dashscope
import openai
import pytest
from dashscope import Generation
from langchain_openai import ChatOpenAI

from tests.apiserver import REPOSITORY
from tests.forking import Forking
from tunegate.api.versions import Producer, Release
from tunegate.processes import Child, answers, free_port
from tunegate.store import EmbeddedStore, Store

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # clients leave sockets to the garbage collector
    pytest.mark.filterwarnings("ignore::DeprecationWarning:litellm"),
    pytest.mark.filterwarnings("ignore::UserWarning:pydantic"),
]
QUESTION = "How much is the kettle?"
TOKENS = 12


@pytest.fixture(scope="module")
def url(
    embedded_store: EmbeddedStore, base: Path, forking_process: Forking, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("clients")
    uri = f"{embedded_store.uri}/clients"
    port = free_port()
    with pytest.MonkeyPatch.context() as patch:
        environment = {"TUNEGATE_CACHE": str(folder), "TUNEGATE_FEEDBACK_KEY": "5e" * 32, "TUNEGATE_STORE": uri}
        for name, value in {**embedded_store.environment, **environment}.items():
            patch.setenv(name, value)
        store, made = Store.open(uri, endpoint_url=embedded_store.endpoint_url), Producer(kind="test")
        store.publish(base, "shop/base/checkpoint-0", release=Release(format="huggingface"), producer=made)
        argv = [forking_process.python, "-m", "tunegate", "serve", "shop/base/checkpoint-0", "--port", str(port)]
        with Child.start("the server", argv, log=folder / "log") as child:
            child.wait_until(lambda: answers(f"http://127.0.0.1:{port}/v2/health/ready"), seconds=120)
            yield f"http://127.0.0.1:{port}"
    gc.collect()


@pytest.fixture(scope="module")
def expected(url: str) -> str:
    """What the model says: it always takes the likeliest token."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        answer = client.chat.completions.create(
            model="shop", messages=[{"role": "user", "content": QUESTION}], max_tokens=TOKENS
        )
    assert answer.choices[0].message.content
    return answer.choices[0].message.content


def test_openais_stream_says_the_same(url: str, expected: str) -> None:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        stream = client.chat.completions.create(
            model="shop",
            messages=[{"role": "user", "content": QUESTION}],
            max_tokens=TOKENS,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)

    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == expected
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == TOKENS


def test_langchain_says_the_same(url: str, expected: str) -> None:
    model = ChatOpenAI(model="shop", base_url=f"{url}/v1", api_key="none", temperature=0, max_tokens=TOKENS)

    assert "".join(str(piece.content) for piece in model.stream(QUESTION)) == expected
    model.root_client.close()


def test_litellm_says_the_same(url: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # read as it is imported; it would fetch its prices
    import litellm

    chunks = litellm.completion(
        model="openai/shop",
        messages=[{"role": "user", "content": QUESTION}],
        max_tokens=TOKENS,
        stream=True,
        api_base=f"{url}/v1",
        api_key="none",
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == expected


def test_the_articles_dashscope_loop_says_the_same(url: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashscope, "base_http_api_url", f"{url}/api/v1")
    monkeypatch.setattr(dashscope, "api_key", "none")
    asked: Any = {"prompt": [{"role": "user", "content": QUESTION}], "use_raw_prompt": True, "seed": 42}
    events = list(Generation.call(model="shop", stream=True, max_tokens=TOKENS, **asked))

    assert [event.status_code for event in events] == [200] * len(events)
    texts = [event.output.text for event in events]
    assert texts[-1] == expected
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(texts))
    assert (events[-1].output.finish_reason, events[-1].usage.output_tokens) == ("length", TOKENS)


def test_a_raw_prompt_passes_the_chat_template_by(url: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashscope, "base_http_api_url", f"{url}/api/v1")
    monkeypatch.setattr(dashscope, "api_key", "none")
    answer = Generation.call(model="shop", prompt=QUESTION, use_raw_prompt=True, max_tokens=TOKENS)
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        continued = client.completions.create(model="shop", prompt=QUESTION, max_tokens=TOKENS)

    assert answer.output.text == continued.choices[0].text != expected


def test_the_articles_whale_loop_says_the_same(url: str, expected: str, base: Path) -> None:
    generation = runpy.run_path(str(REPOSITORY / "docs/examples/whale.py"))["TextGeneration"]
    generation.set_api_key("none", base_url=url)
    eos = json.loads((base / "generation_config.json").read_text())["eos_token_id"]
    config = {"eos_token_id": eos, "max_new_tokens": TOKENS, "temperature": 0.95, "top_k": 5, "do_sample": False}
    prompt = json.dumps([{"role": "user", "content": QUESTION}])

    events = list(generation.call(model="shop", prompt=prompt, streaming=True, generate_config=config))
    assert "".join(event.output["response"] for event in events) == expected
    (refused,) = generation.call(model="shop", prompt=prompt, generate_config={**config, "eos_token_id": 10**6})
    assert refused.status_code == 400
    assert str(eos) in refused.status_message
