"""Search engines: SearxNG's JSON API, and any other that answers a GET with JSON. What they find are dated sources.

What is wrong with an engine is a sentence that names the remedy; it is what a model observes, and whoever watches it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import aiohttp
from yarl import URL

from tunegate.agent import web
from tunegate.agent.steps import OBSERVATION, fitting
from tunegate.agent.tools import Found, Language, Source, Tool
from tunegate.api.environment import SEARCH_FIELDS, SEARCH_KEY, SEARCH_KIND, SEARCH_URL
from tunegate.api.errors import ToolError, UsageError
from tunegate.knowledge.words import is_chinese

Kind = Literal["searxng", "http"]
SECONDS = 8.0
_MOST = 8  # results that are looked at
_LONGEST_QUERY = 400  # characters
_NOTHING: dict[Language, str] = {
    "en": "The search found nothing; ask in other words.",
    "zh": "没有搜到结果；请换一种说法。",
}
_QUERY = "{query}"


@dataclass(frozen=True)
class Fields:
    """Where things are in an engine's JSON, as names with dots between them; `results` is a list of objects."""

    results: str = "results"
    title: str = "title"
    url: str = "url"
    text: str = "content"
    date: str = "publishedDate"

    @classmethod
    def read(cls, text: str) -> Fields:
        """From `results=web.results,text=description`. Raises UsageError."""
        given = dict(part.partition("=")[::2] for part in filter(None, map(str.strip, text.split(","))))
        if set(given) - set(cls.__dataclass_fields__) or not all(given.values()):
            names = ", ".join(cls.__dataclass_fields__)
            raise UsageError(f"{text!r} names no fields of results; write NAME=WHERE of {names} ({SEARCH_FIELDS}).")
        return cls(**given)


@dataclass(frozen=True)
class Engine:
    """A search engine. url: SearxNG's, or with {query} in it. headers: such as those with an API key."""

    url: str
    kind: Kind = "searxng"
    fields: Fields = Fields()
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Raises UsageError for a URL that can't be one."""
        if self.kind not in ("searxng", "http"):
            raise UsageError(f"{self.kind!r} is no kind of search; it is searxng or http ({SEARCH_KIND}).")
        is_template = _QUERY in self.url
        if not self.url.startswith(("http://", "https://")) or is_template != (self.kind == "http"):
            example = "https://HOST/search?q={query}" if self.kind == "http" else "http://HOST:8080"
            raise UsageError(f"{self.url!r} is no URL of a {self.kind} search; write it as {example} ({SEARCH_URL}).")

    def address(self, query: str) -> URL:
        """The URL that asks for `query`."""
        if self.kind == "http":
            before, _, after = self.url.partition(_QUERY)
            return URL(
                f"{before}{URL.build(query={'q': query}).raw_query_string.removeprefix('q=')}{after}", encoded=True
            )
        base = URL(self.url)
        path = base.path.rstrip("/").removesuffix("/search")
        return base.with_path(f"{path}/search").with_query(
            q=query, format="json", language="zh-CN" if is_chinese(query) else "en", safesearch="1"
        )


async def search(engine: Engine, query: str, *, seconds: float = SECONDS) -> tuple[Source, ...]:
    """What an engine finds, best first, of no more tokens than an observation has. Raises ToolError with a remedy."""
    query = " ".join(query.split())[:_LONGEST_QUERY]
    if not query:
        raise ToolError("The search is asked for nothing; write what to look for.")
    page = await _answer(engine, query, seconds)
    if refusal := _refusal(page):
        raise refusal
    answer = _json(page)
    rows = _at(answer, engine.fields.results)
    if not isinstance(rows, list):
        raise ToolError(
            f"The search engine's answer has no list {engine.fields.results!r}; say where its results are "
            f"({SEARCH_FIELDS})."
        )
    found = [source for row in rows[:_MOST] if (source := _source(row, engine.fields))]
    unresponsive = answer.get("unresponsive_engines") if isinstance(answer, dict) else None
    if not found and unresponsive:
        raise ToolError("The search engine's own sources do not respond; ask again later, or enable others in it.")
    return tuple(fitting(found, OBSERVATION))


def tool(engine: Engine, language: Language) -> Tool:
    """Searches the web."""

    async def call(query: str) -> Found:
        return await search(engine, query) or _NOTHING[language]

    return Tool(
        ("Search API", "搜索API"),
        ("finds current facts on the web", "在网上查找最新的事实"),
        call,
        seconds=SECONDS + 2,
        key="search",
        takes=("query", "what to look for", "要查找的内容"),
    )


async def _answer(engine: Engine, query: str, seconds: float) -> web.Page:
    url = engine.address(query)
    is_here = url.host in ("127.0.0.1", "localhost", "::1")  # a proxy is for other machines
    try:
        return await web.get(url, seconds=seconds, headers=engine.headers, trust_env=not is_here)
    except TimeoutError:
        raise ToolError(
            f"The search engine did not answer within {seconds:g} seconds; ask again, or let it ask fewer engines."
        ) from None
    except (OSError, aiohttp.ClientError, ValueError):
        raise ToolError(f"The search engine can't be reached; start it, or correct {SEARCH_URL}.") from None


def _refusal(page: web.Page) -> ToolError | None:
    """What is wrong with an answer; None where it may be right."""
    match page.status:
        case 401:
            return ToolError(f"The search engine wants an API key; give it in {SEARCH_KEY}.")
        case 403:
            return ToolError(
                "The search engine refuses to answer in JSON (403); add json to search.formats in SearxNG's "
                f"settings.yml, or check the key in {SEARCH_KEY}."
            )
        case 429:
            return ToolError(
                "The search engine takes no more requests for now (429); ask later, or turn off the limiter in "
                "SearxNG's settings.yml."
            )
        case status if status != 200:
            return ToolError(f"The search engine answers with status {status}; check {SEARCH_URL}.")
    if "html" in page.kind or page.text.lstrip().startswith("<"):
        return ToolError(
            f"The search engine answers with a page, not JSON; {SEARCH_URL} must be SearxNG's own address, with no "
            "login page before it."
        )
    return None


def _json(page: web.Page) -> Any:
    try:
        return json.loads(page.text)
    except (ValueError, RecursionError):
        raise ToolError(f"The search engine's answer is no JSON; check {SEARCH_URL} and {SEARCH_KIND}.") from None


def _source(row: Any, fields: Fields) -> Source | None:
    """A result with text; its date is the day."""
    title, url, text, date = (_text(_at(row, where)) for where in (fields.title, fields.url, fields.text, fields.date))
    if not (title or text):
        return None
    score = _at(row, "score")
    return Source(
        title or url, text, url, date=date[:10], score=float(score) if isinstance(score, int | float) else None
    )


def _at(value: Any, where: str) -> Any:
    for name in where.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _text(value: Any) -> str:
    return " ".join(str(value).split()) if isinstance(value, str | int | float) else ""
