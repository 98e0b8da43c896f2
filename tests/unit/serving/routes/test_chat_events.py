"""Answers made of events: in front of the embedded engine, all but plain streams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.unit.serving.standin import DIGEST, MODEL, USAGE, Server, StandIn, embedded
from tunegate.serving.limits import Embedded

SAID = 'a "model":"/models/x@main" 夏'


@pytest.fixture
def limits() -> Embedded:
    return embedded()


@pytest.fixture
def client(server: Server, engine: StandIn) -> Iterator[openai.OpenAI]:
    engine.usage_at_finish = True
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as client:
        yield client


def asking(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def test_a_whole_answer_is_made_of_the_engines_stream(client: openai.OpenAI, server: Server) -> None:
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=asking("hi"))
    answer = raw.parse()

    assert server.engine.asked[-1]["stream"] is True
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (SAID, "stop")
    assert answer.usage is not None
    assert answer.usage.to_dict() == USAGE
    assert (answer.model, server.ids.read(answer.id).digest) == (MODEL, DIGEST)
    assert raw.headers["x-tunegate-version"] == DIGEST
    assert server.count("tunegate_answers_total") == 1


def test_usage_has_a_chunk_of_its_own_where_it_was_asked_for(client: openai.OpenAI, server: Server) -> None:
    chunks = list(
        client.chat.completions.create(
            model=MODEL, messages=asking("hi"), stream=True, stream_options={"include_usage": True}
        )
    )

    assert [len(chunk.choices) for chunk in chunks] == [1] * (len(chunks) - 1) + [0]
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.to_dict() == USAGE
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == SAID
    assert len({chunk.id for chunk in chunks}) == 1
    assert server.count("tunegate_time_to_first_token_seconds_count") == 1


@pytest.mark.parametrize(("text", "status"), [("fail", 502), ("report", 502), ("break off", 502), ("refuse", 400)])
def test_a_failure_before_the_answer_has_its_status(client: openai.OpenAI, text: str, status: int) -> None:
    with pytest.raises(openai.APIStatusError, match="engine") as caught:
        client.chat.completions.create(model=MODEL, messages=asking(text))

    assert caught.value.status_code == status


@pytest.mark.parametrize("text", ["report", "break off"])
def test_a_failure_within_a_stream_ends_it_with_an_error(client: openai.OpenAI, server: Server, text: str) -> None:
    stream = client.chat.completions.create(
        model=MODEL, messages=asking(text), stream=True, stream_options={"include_usage": True}
    )
    with pytest.raises(openai.APIError, match="engine"):
        list(stream)

    assert server.count("tunegate_answer_errors_total", reason="engine") == 1
    assert server.count("tunegate_answers_total") == 0


def test_a_stop_string_ends_the_answer_and_the_engines_work(client: openai.OpenAI, server: Server) -> None:
    for stream in (False, True):
        server.engine.ended.clear()
        said = ask_with_stop(client, "go on", 'model":', stream=stream)
        assert said == ('a "', "stop")
        assert server.engine.ended.wait(100)
    assert ask_with_stop(client, "hi", "夏夏", stream=True) == (SAID, "stop")
    assert server.count("tunegate_answers_total") == 3


def ask_with_stop(client: openai.OpenAI, text: str, stop: str, *, stream: bool) -> tuple[str, str | None]:
    """What is said, and why it ended."""
    if not stream:
        answer = client.chat.completions.create(model=MODEL, messages=asking(text), stop=stop)
        return answer.choices[0].message.content or "", answer.choices[0].finish_reason
    chunks = list(client.chat.completions.create(model=MODEL, messages=asking(text), stop=[stop], stream=True))
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks), chunks[-1].choices[0].finish_reason


SCHEMA = {"type": "object", "properties": {"price": {"type": "number"}}, "required": ["price"]}
FORMAT: Any = {"type": "json_schema", "json_schema": {"name": "price", "strict": True, "schema": SCHEMA}}


@pytest.mark.parametrize("stream", [False, True])
def test_json_by_a_schema_is_checked_and_asked_for_once_more(
    client: openai.OpenAI, server: Server, stream: bool
) -> None:
    server.engine.says = ['It is {"price": "low"}.', 'Sorry: ```json\n{"price": 20}\n```']
    answer = client.chat.completions.create(
        model=MODEL, messages=asking("Price?"), response_format=FORMAT, stream=stream
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in answer) if stream else content_of(answer)

    assert text == '{"price": 20}'
    first, second = (asked["messages"] for asked in server.engine.asked)
    assert '"required": ["price"]' in first[0]["content"]
    assert second[-2] == {"role": "assistant", "content": 'It is {"price": "low"}.'}
    assert "$.price" in second[-1]["content"]
    assert server.count("tunegate_answers_total") == 1


def content_of(answer: Any) -> str:
    return str(answer.choices[0].message.content)


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_never_the_json_asked_for_is_an_error_with_the_reason(
    client: openai.OpenAI, server: Server, stream: bool
) -> None:
    server.engine.says = ["I can't.", '{"price": "low"}', "unasked"]
    with pytest.raises(openai.InternalServerError, match=r"\$\.price.*asked for twice") as caught:
        client.chat.completions.create(model=MODEL, messages=asking("Price?"), response_format=FORMAT, stream=stream)

    assert caught.value.status_code == 502
    assert server.engine.says == ["unasked"]
    assert server.count("tunegate_answer_errors_total", reason="engine") == 1
