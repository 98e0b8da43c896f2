"""`tunegate agent`: a model that uses tools until it answers, watched step by step."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from tunegate.api import environment
from tunegate.api.errors import UsageError
from tunegate.cli.knowledge import embedder_options, open_index
from tunegate.cli.options import optional_store_options
from tunegate.cli.prompts import format_option

if TYPE_CHECKING:
    from tunegate.agent import Answered, Taken, Tool
    from tunegate.agent.tools import Language
    from tunegate.evaluation.models.http import HttpModel
    from tunegate.knowledge.index import Searcher
    from tunegate.prompts import Message, Template

Dialect = Literal["react", "openai", "once"]


@click.group()
def command() -> None:
    """Let a model use tools until it answers."""


def tool_options(command: Any) -> Any:
    """Add the options that give tools what they need, and the embedder's and store's."""
    options = (
        click.option("--search", metavar="URL", help="A SearxNG, or another engine's URL with {query} in it."),
        click.option("--search-fields", metavar="NAME=WHERE,...", help="Where results are in another engine's JSON."),
        click.option("--knowledge", metavar="INDEX", help="A folder, NAME or NAME@DIGEST in the store, or a database."),
        click.option(
            "--catalogue", type=click.Path(path_type=Path), metavar="TABLE", help="A table of products: CSV or JSON."
        ),
        click.option(
            "--http-allow", multiple=True, metavar="URL|NETWORK", help="Pages below it may be read; again for more."
        ),
        embedder_options,
        optional_store_options,
    )
    for option in reversed(options):
        command = option(command)
    return command


@command.command()
@click.argument("question")
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="Where a model answers as OpenAI's do.")
@click.option("--model", help="The model's name there; by default the first that is listed.")
@click.option(
    "--dialect",
    type=click.Choice(["react", "openai", "once"]),
    default="react",
    show_default=True,
    help="How tools are asked for: in text, by tool calls, or once, before the answer.",
)
@click.option("--template", help="A template of one's own, in place of the built-in one.")
@click.option("--language", type=click.Choice(["en", "zh"]), help="Of the prompt; by default the question's.")
@click.option("--steps", default=6, show_default=True, type=click.IntRange(min=1), help="The most steps.")
@click.option("--seconds", default=60.0, show_default=True, type=click.FloatRange(min=1), help="No step begins later.")
@click.option("--tokens", default=4000, show_default=True, type=click.IntRange(min=1), help="The most tokens written.")
@tool_options
@format_option
def ask(
    question: str,
    url: str,
    model: str | None,
    dialect: Dialect,
    template: str | None,
    language: Language | None,
    steps: int,
    seconds: float,
    tokens: int,
    form: str,
    **given: Any,
) -> None:
    """Answer QUESTION with the tools that are given what they need; a calculator always is one.

    A server that wants an API key gets the one in TUNEGATE_API_KEY.
    """
    import asyncio
    import os
    from contextlib import closing

    import msgspec

    from tunegate.agent import Limits
    from tunegate.evaluation.models.http import HttpModel
    from tunegate.knowledge.words import is_chinese
    from tunegate.prompts import load_template

    language = language or ("zh" if is_chinese(question) else "en")
    tools = _tools(language, **given)
    made = load_template(template) if template else None
    limits = Limits(steps=steps, seconds=seconds, tokens=tokens)
    with closing(HttpModel(url, model, os.environ.get(environment.API_KEY))) as answerer:
        events = _events(dialect, question, tools, answerer, template=made, language=language, limits=limits)
        seen = asyncio.run(_watched(events, show=form == "text"))
    if form == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(seen), indent=2))


def _tools(
    language: Language,
    *,
    search: str | None,
    search_fields: str | None,
    knowledge: str | None,
    catalogue: Path | None,
    http_allow: Sequence[str],
    **index: Any,
) -> tuple[Tool, ...]:
    """The tools that the options and the environment give what they need."""
    import os

    from tunegate.agent.catalogue import load
    from tunegate.agent.toolbox import build, places

    said = {
        environment.SEARCH_URL: search,
        environment.SEARCH_FIELDS: search_fields,
        environment.HTTP_ALLOW: ",".join(http_allow),
    }
    found = places({**os.environ, **{name: value for name, value in said.items() if value}})
    opened: Searcher | None = open_index(knowledge, **index)[0] if knowledge else None
    table = load(catalogue) if catalogue else None
    has = {"knowledge": opened, "catalogue": table, "search": found.search, "http": found.http}
    names = ["calculator", *(name for name, value in has.items() if value is not None)]
    return build(names, index=opened, catalogue=table, search=found.search, http=found.http, language=language)


def _events(
    dialect: Dialect,
    question: str,
    tools: Sequence[Tool],
    answerer: HttpModel,
    *,
    template: Template | None,
    language: Language,
    **limits: Any,
) -> AsyncIterator[Taken | Answered]:
    import asyncio
    import secrets
    from datetime import UTC, datetime

    from tunegate.agent import Reply, calls, once
    from tunegate.agent import ask as by_actions
    from tunegate.prompts import load_template

    names = {"react": f"react-{language}", "openai": f"tools-{language}"}
    made = template or (load_template(names[dialect]) if dialect in names else None)
    bounds = made.head.limits if made else load_template(f"knowledge-{language}").head.limits
    options: dict[str, Any] = {"template": made, "language": language, "nonce": secrets.token_hex(4)}

    async def model(messages: Sequence[Message]) -> Reply:
        return Reply(*await asyncio.to_thread(answerer.reply, messages, bounds))

    async def caller(messages: Any, schemas: Any, choice: calls.Choice) -> Reply:
        return await asyncio.to_thread(answerer.calls, messages, schemas, choice, bounds)

    if dialect == "openai":
        return calls.ask(question, tools, caller, **options, **limits)
    if dialect == "react":
        return by_actions(question, tools, model, **options, **limits)
    asked = [tool for tool in tools if tool.function != "calculator"]
    if len(asked) != 1:
        raise UsageError("--dialect once asks one tool; give it what it needs: --search, --knowledge or --catalogue.")
    return once.ask(question, asked[0], model, today=datetime.now(UTC).date(), **options)


async def _watched(events: AsyncIterator[Taken | Answered], *, show: bool) -> list[Taken | Answered]:
    seen = []
    async for event in events:
        seen.append(event)
        if show:
            _print(event)
    return seen


def _print(event: Taken | Answered) -> None:
    from tunegate.agent import Taken

    if isinstance(event, Taken):
        thought = event.thought and f" {event.thought}"
        observation = event.observation.replace("\n", "\n      ")
        click.echo(f"{event.number}.{thought}\n   {event.tool}: {event.input}\n   -> {observation}")
        return
    click.echo(event.text)
    if event.reason not in ("answer", "not found"):
        click.echo(f"It was asked to end: the limit is {event.reason}.", err=True)
