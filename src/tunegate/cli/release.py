"""`tunegate release`: what is served besides the weights, shown and changed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import click

from tunegate.api.codec import to_json
from tunegate.api.digest import short
from tunegate.api.errors import UsageError
from tunegate.cli.options import json_option, open_store, print_table, store_options, transfer_bar


@click.group()
def command() -> None:
    """Show what a version is besides its weights, and make versions that differ in that alone."""


@command.command()
@click.argument("version")
@click.option("--name", required=True, metavar="MODEL/RUN/checkpoint-STEP", help="What the new version is called.")
@click.option(
    "--prompt",
    "prompts",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="A folder with templates such as answer-en.prompt.",
)
@click.option("--knowledge", metavar="NAME[@DIGEST]", help="An index in the store that answers are drawn from.")
@click.option("--tools", metavar="NAME,...", help="What an agent may ask until it answers, such as calculator,search.")
@click.option("--dialect", type=click.Choice(["react", "openai", "once"]), help="How the model asks for tools.")
@click.option("--limit", "limits", multiple=True, metavar="NAME=VALUE", help="steps, seconds or tokens of an agent.")
@click.option("--system-prompt", metavar="TEXT", help="The system message of requests that have none.")
@click.option(
    "--generation", multiple=True, metavar="NAME=VALUE", help="What requests leave open, such as temperature=0.2."
)
@click.option(
    "--without",
    multiple=True,
    type=click.Choice(["prompts", "knowledge", "tools"]),
    help="A part of VERSION's release that the new one is not to have; again for more.",
)
@store_options
@json_option
def derive(
    version: str,
    name: str,
    prompts: Path | None,
    knowledge: str | None,
    tools: str | None,
    dialect: Literal["react", "openai", "once"] | None,
    limits: tuple[str, ...],
    system_prompt: str | None,
    generation: tuple[str, ...],
    without: tuple[str, ...],
    store_uri: str,
    endpoint_url: str | None,
    as_json: bool,
) -> None:
    """Make a version with the weights of VERSION (name, URI or digest) and another release.

    It is a candidate as a newly trained one is: evaluated, held against the gates, shown to a few. The weights are
    copied within the store.
    """
    from tunegate.release import Changes
    from tunegate.release import derive as derive_version

    changes = Changes(
        prompts=prompts,
        knowledge=knowledge,
        tools=[tool.strip() for tool in tools.split(",")] if tools else (),
        without=cast("Any", without),
        dialect=dialect,
        limits=_numbers("--limit", limits),
        system_prompt=system_prompt,
        generation=_numbers("--generation", generation),
    )
    store = open_store(store_uri, endpoint_url)
    found = store.resolve(version)
    with transfer_bar(f"Deriving {name}") as progress:
        made = derive_version(store, found, name, changes, progress)
    click.echo(to_json(made) if as_json else f"{made.uri} {made.digest}", nl=not as_json)


@command.command()
@click.argument("version")
@store_options
@json_option
def show(version: str, store_uri: str, endpoint_url: str | None, as_json: bool) -> None:
    """Show the release of VERSION (name, URI or digest): all that is served besides its weights."""
    from tunegate.store.release import read_release

    store = open_store(store_uri, endpoint_url)
    found = store.resolve(version)
    release = read_release(store, found)
    if as_json:
        click.echo(to_json(release), nl=False)
        return
    manifest = store.manifest(found.digest)
    derived, limits = manifest.producer.derived, release.limits
    named = release.prompts and f"{release.prompts.path}/"
    files = [file for file in manifest.files if named and file.path.startswith(named)]
    facts = [
        ("Digest", found.digest),
        ("Weights", found.format + (f" on {release.base.uri}" if release.base else "")),
        ("Made from", f"{derived.uri} {short(derived.digest)}" if derived else ""),
        ("System prompt", release.system_prompt),
        ("Prompts", "\n".join(f"{file.path} {file.sha256[:12]}" for file in files)),
        ("Knowledge", release.knowledge.index if release.knowledge else ""),
        ("Tools", ", ".join(release.tools) + (f" ({release.dialect})" if release.tools else "")),
        ("Limits", f"{limits.steps} steps, {limits.seconds:g} s, {limits.tokens} tokens" if release.tools else ""),
        ("Generation", ", ".join(f"{name} {value:g}" for name, value in release.generation.items())),
    ]
    print_table(found.name, ("", ""), [(name, value) for name, value in facts if value])


def _numbers(option: str, pairs: Sequence[str]) -> dict[str, float]:
    """NAME=VALUE of an option that is given again and again. Raises UsageError for anything else."""
    numbers: dict[str, float] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        try:
            number = int(value) if value.lstrip("-").isdigit() else float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise UsageError(f"{option} {pair} can't be read; write NAME=NUMBER, such as {option} {name}=1.")
        numbers[name] = number
    return numbers
