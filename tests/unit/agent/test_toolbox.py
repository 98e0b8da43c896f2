"""The tools of a release: what each needs, what it is called, and what it is where a model calls functions."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import jsonschema
import pytest

from tunegate.agent import CALCULATOR, Source
from tunegate.agent.catalogue import Catalogue
from tunegate.agent.fetch import Allowed
from tunegate.agent.search import Engine, Fields
from tunegate.agent.toolbox import NAMES, build, places
from tunegate.agent.tools import find
from tunegate.api.errors import ToolError, UsageError
from tunegate.knowledge.build import build as build_index
from tunegate.knowledge.documents import Document, Section
from tunegate.knowledge.index import Index

DOCUMENT = Document("help.md", "Help", (Section("Send it back within 14 days.", ("Returns",), line=3),))


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    folder = tmp_path_factory.mktemp("index") / "index"
    build_index([DOCUMENT], folder)
    return Index(folder)


def test_every_tool_of_a_release_is_built(index: Index) -> None:
    tools = build(
        [*NAMES, "search"],
        index=index,
        catalogue=Catalogue(DOCUMENT),
        search=Engine("http://127.0.0.1:9"),
        http=Allowed.read(["https://example.com/help"]),
        language="zh",
    )

    assert tuple(tool.function for tool in tools) == NAMES
    for tool in tools:
        assert len(tool.names) == len(tool.descriptions) == 2
        assert find(tools, tool.name("zh")) == find(tools, tool.name("en")) == find(tools, tool.function) == tool
        for language in ("en", "zh"):
            schema = tool.schema(language)["function"]  # type: ignore[arg-type]
            assert re.fullmatch("[a-z_]{1,64}", schema["name"])
            jsonschema.Draft202012Validator.check_schema(schema["parameters"])
            jsonschema.validate({tool.takes[0]: "x"}, schema["parameters"])


def test_the_knowledge_base_gives_its_chunks_or_its_sentence(index: Index) -> None:
    (tool,) = build(["knowledge"], index=index)

    found = asyncio.run(tool.call("How do I send it back?"))  # type: ignore[arg-type, var-annotated]
    assert isinstance(found, tuple)
    assert found[0] == Source(
        "Help > Returns", "Send it back within 14 days.", "help.md", 3, score=found[0].score, number=1
    )
    assert asyncio.run(tool.call("谁是市长？")) == "知识库中没有相关内容。"  # type: ignore[arg-type, comparison-overlap]
    with pytest.raises(ToolError, match="write a question"):
        asyncio.run(tool.call(""))  # type: ignore[arg-type]


LACKING = {
    "knowledge": "needs an index; name one under knowledge in release.yaml",
    "catalogue": "needs a table; put catalogue.csv into the release's prompts folder",
    "search": "needs a search engine; give its URL in TUNEGATE_SEARCH_URL",
    "http": "needs URLs that it may read; list them in TUNEGATE_HTTP_ALLOW",
    "browser": "There is no tool 'browser'; the tools are: calculator, knowledge, catalogue, search, http",
}


@pytest.mark.parametrize(("name", "message"), LACKING.items(), ids=LACKING)
def test_what_a_tool_lacks_is_said_before_any_question(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(["calculator", name])


def test_places_come_from_the_environment() -> None:
    assert places({}).search is places({}).http is None
    found = places({"TUNEGATE_SEARCH_URL": "http://searxng:8080", "TUNEGATE_HTTP_ALLOW": "https://a.com/x, 10.0.0.0/8"})
    assert found.search == Engine("http://searxng:8080")
    assert found.http
    assert [str(prefix) for prefix in found.http.prefixes] == ["https://a.com/x/"]
    keyed = places(
        {
            "TUNEGATE_SEARCH_URL": "https://api.example.com/?q={query}",
            "TUNEGATE_SEARCH_KEY": "k",
            "TUNEGATE_SEARCH_HEADER": "X-Token",
            "TUNEGATE_SEARCH_FIELDS": "results=web.results",
        }
    ).search
    assert keyed == Engine("https://api.example.com/?q={query}", "http", Fields("web.results"), {"X-Token": "k"})
    bearer = places({"TUNEGATE_SEARCH_URL": "http://a", "TUNEGATE_SEARCH_KEY": "k"}).search
    assert bearer
    assert bearer.headers == {"Authorization": "Bearer k"}


def test_the_calculator_is_one_of_them(tmp_path: Path) -> None:
    assert build(["calculator"]) == (CALCULATOR,)
