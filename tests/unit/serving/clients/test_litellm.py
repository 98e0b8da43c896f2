"""LiteLLM, unmodified, against our server over HTTP."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import litellm
import pytest

from tests.unit.serving.golden import transcript
from tests.unit.serving.releases import opened
from tests.unit.serving.standin import MODEL, Server
from tunegate.serving.parts import Parts

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),  # pydantic's, of litellm's own types
]
SAID = 'a "model":"/models/x@main" 夏'


@pytest.fixture(autouse=True)
def collected(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(litellm, "telemetry", False)
    yield
    litellm.in_memory_llm_clients_cache.flush_cache()
    gc.collect()  # it leaves its sockets to the garbage collector


def ask(server: Server, **fields: Any) -> Any:
    given = {"model": f"openai/{MODEL}", "messages": [{"role": "user", "content": "hi"}], "max_retries": 0, **fields}
    return litellm.completion(**given, api_base=f"{server.url}/v1", api_key="none")


def test_an_answer_has_its_signed_id(server: Server) -> None:
    answer = ask(server, temperature=0.2, drop_params=True)

    assert answer.choices[0].message.content == "Blue."
    assert server.ids.read(answer.id)
    assert server.engine.asked[0]["temperature"] == 0.2


def test_a_stream_ends_with_usage(server: Server) -> None:
    server.engine.script = [transcript("openai-text-usage").engine]
    chunks = list(ask(server, stream=True, stream_options={"include_usage": True}))

    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Hi!"
    assert chunks[-1].usage.total_tokens == 7


def test_tool_calls_are_joined(server: Server) -> None:
    server.engine.script = [transcript("openai-tools").engine]
    tools = [{"type": "function", "function": {"name": "search", "parameters": {"type": "object"}}}]
    answer = litellm.stream_chunk_builder(list(ask(server, stream=True, tools=tools)))

    assert answer.choices[0].message.tool_calls[0].function.arguments == '{"q":"tv"}'
    assert answer.choices[0].finish_reason == "tool_calls"


def test_a_text_is_continued(server: Server) -> None:
    server.engine.script = [transcript("completions-text").engine]
    chunks = litellm.text_completion(
        model=f"text-completion-openai/{MODEL}",
        prompt="Once",
        api_base=f"{server.url}/v1",
        api_key="none",
        stream=True,
    )

    assert "".join(chunk.choices[0].text or "" for chunk in chunks) == "汝亦来哉。"
    assert server.engine.asked[0]["prompt"] == "Once"


def test_a_refusal_is_its_own_kind_of_error(server: Server) -> None:
    with pytest.raises(litellm.NotFoundError, match=MODEL):
        ask(server, model="openai/other/model")
    with pytest.raises(litellm.BadRequestError, match="stream must be true or false"):
        ask(server, extra_body={"stream": "true"})


class TestOfARelease:
    """One with knowledge: its sources stand where LiteLLM doesn't look, its citations where it does."""

    @pytest.fixture
    def parts(self, shop_index: Path) -> Parts:
        return opened(index=shop_index)

    @pytest.mark.parametrize("stream", [False, True])
    def test_the_answer_is_read(self, server: Server, *, stream: bool) -> None:
        server.engine.says = ["Within 14 days [1], see [9]."]
        question = [{"role": "user", "content": "How many days do I have to send something back?"}]
        answer = ask(server, messages=question, stream=stream)

        choices = [choice for chunk in (answer if stream else [answer]) for choice in chunk.choices]
        said = [choice.delta.content if stream else choice.message.content for choice in choices]
        assert "".join(text or "" for text in said) == "Within 14 days [1], see."
