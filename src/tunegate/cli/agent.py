"""`tunegate agent`: a model that uses tools until it answers, watched step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click

from tunegate.cli.prompts import format_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tunegate.agent import Answered, Limits, Taken
    from tunegate.evaluation.models.http import HttpModel
    from tunegate.prompts import Message, Template


@click.group()
def command() -> None:
    """Let a model use tools until it answers."""


@command.command()
@click.argument("question")
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="Where a model answers as OpenAI's do.")
@click.option("--model", help="The model's name there; by default the first that is listed.")
@click.option("--template", help="A template with the variables tools and question, in place of the built-in one.")
@click.option("--language", type=click.Choice(["en", "zh"]), default="en", show_default=True, help="Of the prompt.")
@click.option("--steps", default=6, show_default=True, type=click.IntRange(min=1), help="The most steps.")
@click.option("--seconds", default=60.0, show_default=True, type=click.FloatRange(min=1), help="No step begins later.")
@click.option("--tokens", default=4000, show_default=True, type=click.IntRange(min=1), help="The most tokens written.")
@format_option
def ask(
    question: str,
    url: str,
    model: str | None,
    template: str | None,
    language: Literal["en", "zh"],
    steps: int,
    seconds: float,
    tokens: int,
    form: str,
) -> None:
    """Answer QUESTION by thought, action, input and observation in turn, with a calculator as the tool.

    A server that wants an API key gets the one in TUNEGATE_API_KEY.
    """
    import asyncio
    import os
    from contextlib import closing

    import msgspec

    from tunegate.agent import Limits
    from tunegate.api import environment
    from tunegate.evaluation.models.http import HttpModel
    from tunegate.prompts import load_template

    made = load_template(template or f"react-{language}")
    limits = Limits(steps=steps, seconds=seconds, tokens=tokens)
    with closing(HttpModel(url, model, os.environ.get(environment.API_KEY))) as answerer:
        events = asyncio.run(_ask(question, answerer, made, language, limits, show=form == "text"))
    if form == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(events), indent=2))


async def _ask(
    question: str, answerer: HttpModel, template: Template, language: Literal["en", "zh"], limits: Limits, *, show: bool
) -> list[Taken | Answered]:
    import asyncio
    import secrets

    from tunegate.agent import CALCULATOR, Reply
    from tunegate.agent import ask as answer

    async def model(messages: Sequence[Message]) -> Reply:
        return Reply(*await asyncio.to_thread(answerer.reply, messages, template.head.limits))

    options = {"nonce": secrets.token_hex(4), "language": language, "template": template, "limits": limits}
    events = []
    async for event in answer(question, [CALCULATOR], model, **options):  # type: ignore[arg-type]
        events.append(event)
        if show:
            _print(event)
    return events


def _print(event: Taken | Answered) -> None:
    from tunegate.agent import Taken

    if isinstance(event, Taken):
        click.echo(f"{event.number}. {event.thought}\n   {event.tool}: {event.input}\n   -> {event.observation}")
    else:
        click.echo(event.text)
        if event.reason != "answer":
            click.echo(f"It was asked to end: the limit is {event.reason}.", err=True)
