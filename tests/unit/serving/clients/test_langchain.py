"""LangChain's ChatOpenAI, unmodified, against our server over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from tests.unit.serving.golden import transcript
from tests.unit.serving.standin import MODEL, USAGE, Server

SAID = 'a "model":"/models/x@main" 夏'


class Kettle(BaseModel):
    name: str
    price: int


@pytest.fixture
def model(server: Server) -> Iterator[ChatOpenAI]:
    model = ChatOpenAI(model=MODEL, base_url=f"{server.url}/v1", api_key="none", temperature=0.7, max_retries=0)
    yield model
    model.root_client.close()


def test_an_answer_has_its_usage(model: ChatOpenAI, server: Server) -> None:
    answer = model.invoke("hi")

    assert answer.content == "Blue."
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["total_tokens"] == USAGE["total_tokens"]
    assert server.ids.read(answer.response_metadata["id"])


def test_what_an_agent_always_sends_reaches_the_engine(model: ChatOpenAI, server: Server) -> None:
    pieces = list(model.bind(stop=["\nObservation:"]).stream("hi"))

    assert "".join(str(piece.content) for piece in pieces) == SAID
    assert (server.engine.asked[0]["stop"], server.engine.asked[0]["temperature"]) == (["\nObservation:"], 0.7)


def test_tools_are_called(model: ChatOpenAI, server: Server) -> None:
    server.engine.script = [transcript("openai-tools-misnumbered").engine]
    tools: list[Any] = [{"type": "function", "function": {"name": "search", "parameters": {"type": "object"}}}]
    whole = None
    for piece in model.bind_tools(tools).stream("two tvs?"):
        whole = piece if whole is None else whole + piece

    assert whole is not None
    assert [(call["id"], call["name"], call["args"]) for call in whole.tool_calls] == [
        ("a", "search", {}),
        ("b", "search", {}),
    ]


def test_structured_output_is_asked_for_by_its_schema(model: ChatOpenAI, server: Server) -> None:
    with pytest.raises(Exception, match="Blue"):  # the engine that stands in knows no schema
        model.with_structured_output(Kettle, method="json_schema").invoke("hi")

    assert server.engine.asked[0]["response_format"]["json_schema"]["strict"] is True


def test_a_refusal_says_why(server: Server, model: ChatOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match=MODEL):
        model.model_copy(update={"model_name": "other/model"}).invoke("hi")
