"""OpenAI's SDK and its helpers, unmodified: what `routes/test_chat` leaves of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.unit.serving.golden import transcript
from tests.unit.serving.standin import MODEL, USAGE, Server

ASK: list[Any] = [{"role": "user", "content": "a tv?"}]
TOOLS: list[Any] = [{"type": "function", "function": {"name": "search", "parameters": {"type": "object"}}}]
STREAMED = 'a "model":"/models/x@main" 夏'


class Kettle(BaseModel):
    name: str
    price: int


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as client:
        yield client


def test_the_streaming_helper_joins_a_tool_call(client: openai.OpenAI, server: Server) -> None:
    server.engine.script = [transcript("openai-tools").engine]
    options: Any = {"include_usage": True}
    with client.chat.completions.stream(model=MODEL, messages=ASK, tools=TOOLS, stream_options=options) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()

    assert "tool_calls.function.arguments.done" in kinds
    (call,) = final.choices[0].message.tool_calls or []
    assert (call.id, call.function.name, call.function.arguments) == ("call_1", "search", '{"q":"tv"}')
    assert (final.choices[0].finish_reason, final.usage and final.usage.total_tokens) == ("tool_calls", 8)


def test_calls_that_an_engine_numbers_alike_are_told_apart(client: openai.OpenAI, server: Server) -> None:
    server.engine.script = [transcript("openai-tools-misnumbered").engine]
    with client.chat.completions.stream(model=MODEL, messages=ASK, tools=TOOLS) as stream:
        final = stream.get_final_completion()

    assert [call.id for call in final.choices[0].message.tool_calls or []] == ["a", "b"]


def test_a_schema_reaches_the_engine(client: openai.OpenAI, server: Server) -> None:
    with pytest.raises(ValueError, match="Blue"):  # the engine that stands in knows no schema
        client.chat.completions.parse(model=MODEL, messages=ASK, response_format=Kettle)

    (asked,) = server.engine.asked
    assert asked["response_format"]["json_schema"]["name"] == "Kettle"
    assert asked["response_format"]["json_schema"]["strict"] is True


@pytest.mark.parametrize("fields", [{"n": 2}, {"logprobs": True, "top_logprobs": 2}, {"seed": 7, "stop": ["\n"]}])
def test_what_an_engine_can_do_reaches_it(client: openai.OpenAI, server: Server, fields: dict[str, Any]) -> None:
    client.chat.completions.create(model=MODEL, messages=ASK, **fields)
    (asked,) = server.engine.asked

    assert {name: asked[name] for name in fields} == fields


def test_what_a_chat_page_sends_unasked_is_answered(client: openai.OpenAI) -> None:
    unasked: Any = {"temperature": 1, "top_p": 1, "presence_penalty": 0, "frequency_penalty": 0}
    chunks = client.chat.completions.create(model=MODEL, messages=ASK, stream=True, **unasked)

    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == STREAMED


def test_a_text_is_continued_without_the_releases_prompt(client: openai.OpenAI, server: Server) -> None:
    server.engine.script = [transcript("completions-text").engine]
    chunks = list(client.completions.create(model=MODEL, prompt="Once", stream=True))
    (asked,) = server.engine.asked

    assert "".join(chunk.choices[0].text for chunk in chunks) == "汝亦来哉。"
    assert {server.ids.read(chunk.id).digest for chunk in chunks}
    assert (asked["prompt"], asked.get("messages"), server.engine.paths) == ("Once", None, ["/v1/completions"])


def test_an_answer_and_a_refusal_have_an_id_to_ask_about(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=ASK)
    assert answer._request_id == answer.id
    assert answer.usage is not None
    assert answer.usage.to_dict() == USAGE

    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="other", messages=ASK)
    assert caught.value.request_id


def test_the_asynchronous_client_streams_too(server: Server) -> None:
    async def ask() -> str:
        async with openai.AsyncOpenAI(base_url=server.url + "/openai/v1", api_key="none") as client:
            stream = await client.chat.completions.create(model=MODEL, messages=ASK, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert asyncio.run(ask()) == STREAMED
