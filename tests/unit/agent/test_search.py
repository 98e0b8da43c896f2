"""Searching a SearxNG and another engine, which are real servers that say what they are made to say."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.unit.agent.sites import TALLEST, Answer, results, site
from tunegate.agent import Source
from tunegate.agent.search import Engine, Fields, search, tool
from tunegate.agent.tools import shown
from tunegate.api.errors import ToolError, UsageError
from tunegate.knowledge.words import size


def find(url: str, query: str = "tallest building", *, seconds: float = 5.0) -> tuple[Source, ...]:
    return asyncio.run(search(Engine(url), query, seconds=seconds))


def test_results_are_dated_sources() -> None:
    with site({"/search": results([TALLEST, {"title": "", "content": ""}])}) as searxng:
        found = find(searxng.url, "  tallest\nbuilding in Shanghai ")

    assert found == (
        Source("Shanghai Tower", TALLEST["content"], TALLEST["url"], date="2026-03-01", score=1.5),  # type: ignore[arg-type]
    )
    query = parse_qs(urlsplit(searxng.asked[0]).query)
    assert query == {"q": ["tallest building in Shanghai"], "format": ["json"], "language": ["en"], "safesearch": ["1"]}


@pytest.mark.parametrize("end", ["", "/", "/search", "/searx"])
def test_the_engines_address_may_be_written_in_each_way(end: str) -> None:
    path = "/searx/search" if end == "/searx" else "/search"
    with site({path: results([TALLEST])}) as searxng:
        assert find(searxng.url + end, "上海最高的楼")
    assert "language=zh-CN" in searxng.asked[0]


def test_results_are_cut_to_a_budget_of_tokens() -> None:
    rows = [TALLEST | {"url": f"https://example.com/{i}", "content": "long " * 400} for i in range(8)]
    with site({"/search": results(rows)}) as searxng:
        found = find(searxng.url)

    assert 1 < len(found) < 8
    assert size(shown(found)) <= 1000


def test_another_engine_is_described_by_its_url_and_fields() -> None:
    hits = [{"name": "Tower", "link": "https://example.com", "snippet": "632 meters", "age": "2026-01-02"}]
    fields = Fields.read("results=web.hits, title=name, url=link, text=snippet, date=age")
    with site({"/v1": Answer(json.dumps({"web": {"hits": hits}}), "application/json")}) as engine:
        made = Engine(engine.url + "/v1?q={query}&n=3", "http", fields, {"X-Key": "secret"})
        found = asyncio.run(search(made, "a&b=c 上海"))

    assert found == (Source("Tower", "632 meters", "https://example.com", date="2026-01-02"),)
    assert parse_qs(urlsplit(engine.asked[0]).query) == {"q": ["a&b=c 上海"], "n": ["3"]}
    assert engine.headers[0]["x-key"] == "secret"
    assert "secret" not in repr(made)


WRONG = {
    "a page": (Answer("<html><body>Search</body></html>"), "answers with a page, not JSON; .* must be SearxNG's own"),
    "a page called JSON": (Answer("<!doctype html>", "application/json"), "answers with a page, not JSON"),
    "no json format": (
        Answer("<h1>Forbidden</h1>", status=403),
        "add json to search.formats in SearxNG's settings.yml",
    ),
    "a limit": (Answer("Too many", status=429), "turn off the limiter in SearxNG's settings.yml"),
    "no key": (Answer("", status=401), "wants an API key; give it in TUNEGATE_SEARCH_KEY"),
    "a failure": (Answer("", status=502), "answers with status 502; check TUNEGATE_SEARCH_URL"),
    "a redirect": (Answer("", status=302, headers={"Location": "/login"}), "answers with status 302"),
    "half of it": (Answer('{"results": [', "application/json"), "is no JSON; check"),
    "another shape": (Answer('{"hits": []}', "application/json"), "has no list 'results'; say where .*FIELDS"),
    "no object": (Answer("[]", "application/json"), "has no list 'results'"),
    "its sources fail": (results([], unresponsive_engines=[["a", "timeout"]]), "own sources do not respond"),
    "too much": (Answer("x" * (1 << 21), "application/json"), "larger than 1 MiB"),
}


@pytest.mark.parametrize(("answer", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_with_an_engine_is_a_sentence_with_its_remedy(answer: Answer, message: str) -> None:
    with site({"/search": answer}) as searxng, pytest.raises(ToolError, match=message):
        find(searxng.url)


def test_an_engine_that_hangs_or_is_not_there_is_told_of() -> None:
    slow = pytest.raises(ToolError, match=r"did not answer within 0.2 seconds; ask again, or let it ask fewer")
    with site({"/search": Answer(hangs=True)}) as searxng, slow:
        find(searxng.url, seconds=0.2)
    with pytest.raises(ToolError, match="can't be reached; start it, or correct TUNEGATE_SEARCH_URL"):
        find(searxng.url)


def test_nothing_found_is_told_in_the_users_language() -> None:
    with site({"/search": results([])}) as searxng:
        assert asyncio.run(tool(Engine(searxng.url), "zh").call("x")) == "没有搜到结果；请换一种说法。"  # type: ignore[arg-type]
        with pytest.raises(ToolError, match="write what to look for"):
            find(searxng.url, " ")


@pytest.mark.usefixtures("dead_proxy")
def test_an_engine_on_this_machine_is_not_asked_through_a_proxy() -> None:
    with site({"/search": results([TALLEST])}) as searxng:
        assert find(searxng.url)


@pytest.mark.parametrize(
    ("url", "kind", "message"),
    [
        ("searx.local", "searxng", "write it as http://HOST:8080"),
        ("http://a/?q={query}", "searxng", "write it as http://HOST:8080"),
        ("http://a/", "http", r"write it as https://HOST/search\?q=\{query\}"),
        ("http://a/", "bing", "it is searxng or http"),
    ],
)
def test_an_engine_that_can_not_be_is_refused(url: str, kind: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Engine(url, kind)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["results", "nope=a", "title="])
def test_fields_that_there_are_not_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="names no fields of results; write NAME=WHERE of results, title"):
        Fields.read(text)
