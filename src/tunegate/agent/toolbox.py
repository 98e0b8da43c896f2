"""The tools that a release names, ready to be asked; one that lacks what it needs is refused before any question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunegate.agent import catalogue as catalogues
from tunegate.agent import fetch, knowledge, search
from tunegate.agent.catalogue import Catalogue
from tunegate.agent.fetch import Allowed
from tunegate.agent.search import Engine, Fields
from tunegate.agent.tools import CALCULATOR, Language, Tool
from tunegate.api import environment
from tunegate.api.errors import UsageError

if TYPE_CHECKING:
    from tunegate.knowledge.index import Searcher

NAMES = ("calculator", "knowledge", "catalogue", "search", "http")


@dataclass(frozen=True)
class Places:
    """What differs from place to place: where is searched, and which pages may be read."""

    search: Engine | None = None
    http: Allowed | None = None


def places(environ: Mapping[str, str]) -> Places:
    """As the environment says them. Raises UsageError that names the variable."""
    url = environ.get(environment.SEARCH_URL, "")
    allowed = environ.get(environment.HTTP_ALLOW, "")
    engine = None
    if url:
        kind = environ.get(environment.SEARCH_KIND) or ("http" if "{query}" in url else "searxng")
        header = environ.get(environment.SEARCH_HEADER) or "Authorization"
        key = environ.get(environment.SEARCH_KEY, "")
        value = f"Bearer {key}" if header == "Authorization" else key
        fields = Fields.read(environ.get(environment.SEARCH_FIELDS, ""))
        engine = Engine(url, kind, fields, {header: value} if key else {})  # type: ignore[arg-type]
    return Places(engine, Allowed.read(allowed.split(",")) if allowed else None)


def build(
    names: Sequence[str],
    *,
    index: Searcher | None = None,
    catalogue: Catalogue | None = None,
    search: Engine | None = None,
    http: Allowed | None = None,
    language: Language = "en",
) -> tuple[Tool, ...]:
    """The tools of these names, each once, in their order. language: of what they say.

    Raises UsageError for a name that there is not, or a tool that lacks what it needs.
    """
    return tuple(_build(name, index, catalogue, search, http, language) for name in dict.fromkeys(names))


def check_once(dialect: str, tools: Sequence[str]) -> None:
    """Raise UsageError where one search before the answer is to be all, and there are other tools or none."""
    if dialect == "once" and tuple(tools) != ("search",):
        raise UsageError(
            "The dialect once searches the web once before the answer; let search be the only tool, or take react."
        )


def _build(
    name: str,
    index: Searcher | None,
    catalogue: Catalogue | None,
    engine: Engine | None,
    http: Allowed | None,
    language: Language,
) -> Tool:
    match name:
        case "calculator":
            return CALCULATOR
        case "knowledge":
            if index is None:
                raise UsageError("The tool knowledge needs an index; name one under knowledge in release.yaml.")
            return knowledge.tool(index)
        case "catalogue":
            if catalogue is None:
                raise UsageError(
                    "The tool catalogue needs a table; put catalogue.csv into the release's prompts folder."
                )
            return catalogues.tool(catalogue, language)
        case "search":
            if engine is None:
                raise UsageError(f"The tool search needs a search engine; give its URL in {environment.SEARCH_URL}.")
            return search.tool(engine, language)
        case "http":
            if http is None:
                raise UsageError(f"The tool http needs URLs that it may read; list them in {environment.HTTP_ALLOW}.")
            return fetch.tool(http)
    raise UsageError(f"There is no tool {name!r}; the tools are: {', '.join(NAMES)}.")
