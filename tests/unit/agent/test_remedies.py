"""What a tool refuses, it takes once it is asked, set up or answered as the message says."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.refusals import refused, without_story
from tests.unit.agent.sites import TALLEST, Answer, results, site
from tests.unit.knowledge.embedding import embedding
from tunegate.agent import Tool, catalogue, fetch, knowledge, search
from tunegate.agent.calculator import calculate
from tunegate.agent.fetch import Allowed
from tunegate.agent.search import Engine, Fields
from tunegate.agent.toolbox import build, check_once, places
from tunegate.knowledge.build import build as build_index
from tunegate.knowledge.documents import Document, Section
from tunegate.knowledge.embedders import UrlEmbedder
from tunegate.knowledge.index import Index

TEXT = Answer("Within 14 days.", "text/plain")


def call(tool: Tool, given: str) -> Any:
    return asyncio.run(tool.call(given))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "right", "value"),
    [
        ("3 apples times 2", "3 * 2", "6"),
        ("(1 + 2", "(1 + 2) ^ 2 / 3 - 1", "2"),
        ("1 << 3", "2 ^ 3", "8"),
    ],
)
def test_arithmetic_is_written_as_the_message_says(wrong: str, right: str, value: str) -> None:
    with refused("; write numbers with + - * / ^ and parentheses."):
        calculate(wrong)
    assert calculate(right) == value


def test_a_table_is_named_saved_and_filled(tmp_path: Path) -> None:
    table = tmp_path / "products.csv"
    with refused(" is no table that is there (…); name one."):
        catalogue.load(table)
    table.write_bytes("名称,价\n壶,5\n".encode("gb18030"))
    with refused(" can't be read (…); save it as UTF-8."):
        catalogue.load(table)
    table.write_text("名称,价\n")
    with refused(" has no rows, so nothing can be looked up; fill it, or name another."):
        catalogue.load(table)
    table.write_text("名称,价\n壶,5\n")
    looked_up = catalogue.tool(catalogue.load(table), "zh")
    with refused("The catalogue is asked for nothing; write a product's number or name."):
        call(looked_up, "")
    assert call(looked_up, "壶")[0].title == "壶"


def test_the_knowledge_base_is_asked_a_question(tmp_path: Path) -> None:
    build_index([Document("help.md", "Help", (Section("Send it back within 14 days."),))], tmp_path / "index")
    tool = knowledge.tool(Index(tmp_path / "index"))
    with refused("The knowledge base is asked nothing; write a question."):
        call(tool, " ")
    assert call(tool, "Can I send it back?")


# What is asked for, and what the site answers.
PAGES = {
    " leads on and on; ask for another page.": ("/loop", Answer(status=302, headers={"Location": "/a/loop"})),
    " answers with status …; ask for another page.": ("/none", None),
    " is …, not text; ask for a page of text.": ("/image", Answer(b"\x89PNG", "image/png")),
    "The page is larger than … MiB; ask for a smaller one.": ("/large", Answer("x" * (1 << 21), "text/plain")),
    " seconds; ask for another page.": ("/slow", Answer(hangs=True)),
    " is not allowed; ask for a page below one of: ": ("/../b", None),
}


@pytest.mark.parametrize(("words", "asked"), PAGES.items(), ids=PAGES)
def test_another_page_is_read(words: str, asked: tuple[str, Answer | None], monkeypatch: pytest.MonkeyPatch) -> None:
    path, answer = asked
    with site({"/a/other": TEXT} | ({f"/a{path}": answer} if answer else {})) as shop:
        tool = fetch.tool(Allowed.read([f"{shop.url}/a"]))
        with refused(words), monkeypatch.context() as patched:
            patched.setattr("tunegate.agent.fetch.SECONDS", 0.2 if answer and answer.hangs else 100)
            call(tool, f"{shop.url}/a{path}")
        assert call(tool, f"{shop.url}/a/other")[0].text == TEXT.body


def test_a_page_is_asked_by_its_url_where_its_address_may_be_asked() -> None:
    with site({"/a": TEXT}) as shop:
        url = shop.url.replace("127.0.0.1", "localhost")
        tool = fetch.tool(Allowed.read([url]))
        with refused(" is no URL of a page; write one that begins with http:// or https://."):
            call(tool, "localhost/a")
        with refused(" leads to …, an address that is not public; who runs this can list its network."):
            call(tool, f"{url}/a")
        assert call(fetch.tool(Allowed.read([url, "127.0.0.0/8"])), f"{url}/a")
        gone, other = f"{shop.url}/a", fetch.tool(Allowed.read([shop.url]))
    with refused(" can't be reached; ask for another page."):
        call(other, gone)
    with site({"/a": TEXT}) as another:
        assert call(fetch.tool(Allowed.read([another.url])), f"{another.url}/a")


def test_urls_are_listed() -> None:
    with refused("No URL is allowed, so the tool http can ask nothing; name some in --http-allow or "):
        Allowed.read(["10.0.0.0/8"])
    with refused("can't be allowed; write a URL such as https://example.com/help/, or a network such as 10.0.0.0/8"):
        Allowed.read(["example.com"])
    assert Allowed.read(["https://example.com", "10.0.0.0/8"])


# What is wrong with an engine, and what it answers then.
ENGINES = {
    "The search engine wants an API key; give it in ": Answer(status=401),
    "The search engine refuses to answer in JSON (403); add json to search.formats in SearxNG's": Answer(status=403),
    "The search engine takes no more requests for now (429); ask later, or turn off the limiter": Answer(status=429),
    "The search engine answers with status …; check ": Answer(status=500),
    " must be SearxNG's own address, with no login page before it.": Answer("<html></html>"),
    "The search engine's answer has no list …; say where its results are": Answer("{}", "application/json"),
    "The search engine's own sources do not respond; ask again later": results([], unresponsive_engines=["a"]),
    "The search engine's answer is no JSON; check ": Answer("{", "application/json"),
    "The search engine did not answer within ": Answer(hangs=True),
}


@pytest.mark.parametrize(("words", "answer"), ENGINES.items(), ids=ENGINES)
def test_an_engine_that_was_mended_is_searched(words: str, answer: Answer) -> None:
    with site({"/search": answer}) as searxng, refused(words):
        asyncio.run(search.search(Engine(searxng.url), "tower", seconds=0.2 if answer.hangs else 100))
    with site({"/search": results([TALLEST])}) as searxng:
        assert asyncio.run(search.search(Engine(searxng.url), "tower"))


def test_an_engine_is_there_and_asked_for_something() -> None:
    with site({"/search": results([TALLEST])}) as searxng:
        tool = search.tool(Engine(searxng.url), "en")
        with refused("The search is asked for nothing; write what to look for."):
            call(tool, "")
        assert call(tool, "tower")
    with refused("The search engine can't be reached; start it, or correct "):
        call(tool, "tower")


def test_an_engine_is_described_as_the_message_says() -> None:
    with refused(" is no kind of search; it is searxng or http ("):
        Engine("http://a", "google")  # type: ignore[arg-type]
    with refused(" is no URL of a … search; write it as "):
        Engine("http://a", "http")
    with refused(" names no fields of results; write NAME=WHERE of "):
        Fields.read("hits")
    hits = json.dumps({"hits": [{"title": "Tower"}]})
    with site({"/": Answer(hits, "application/json")}) as other:
        engine = Engine(f"{other.url}/?q={{query}}", "http", Fields.read("results=hits"))
        assert call(search.tool(engine, "en"), "tower")[0].title == "Tower"


def test_tools_get_what_they_need(tmp_path: Path) -> None:
    build_index([Document("help.md", "Help", (Section("Send it back."),))], tmp_path / "index")
    (tmp_path / "catalogue.csv").write_text("item,name\nK-1,Kettle\n")
    with refused("There is no tool …; the tools are: "):
        build(["bing"])
    with refused("The tool knowledge needs an index; name one under knowledge in release.yaml."):
        build(["knowledge"])
    with refused("The tool catalogue needs a table; put catalogue.csv into the release's prompts folder."):
        build(["catalogue"])
    with refused("The tool search needs a search engine; give its URL in "):
        build(["search"])
    with refused("The tool http needs URLs that it may read; list them in "):
        build(["http"])
    found = places({"TUNEGATE_SEARCH_URL": "http://searxng:8080", "TUNEGATE_HTTP_ALLOW": "https://example.com/"})
    table = catalogue.in_folder(tmp_path)
    assert table
    assert build(
        ["knowledge", "catalogue", "search", "http"],
        index=Index(tmp_path / "index"),
        catalogue=catalogue.load(table),
        search=found.search,
        http=found.http,
    )


def test_one_search_is_the_only_tool() -> None:
    with refused("let search be the only tool, or take react."):
        check_once("once", ["search", "calculator"])
    check_once("once", ["search"])
    check_once("react", ["search", "calculator"])


def test_a_knowledge_base_whose_embedder_is_away_is_told_of_by_no_address(tmp_path: Path) -> None:
    with embedding() as server:
        embedder = UrlEmbedder(server.url, "e5")
        build_index([Document("help.md", "Help", (Section("Within 14 days."),))], tmp_path / "index", embedder=embedder)
        tool = knowledge.tool(Index(tmp_path / "index", embedder))
        server.fails = True
        with refused("The knowledge base can't be searched now; ask something else, or answer without it."):
            call(tool, "How long?")
        server.fails = False
        assert call(tool, "How long?")


def test_every_message_has_its_story() -> None:
    assert without_story("agent", Path(__file__)) == []
