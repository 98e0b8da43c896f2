"""`tunegate runs`: how training runs went, from their folders or the store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tunegate.api import environment
from tunegate.cli.options import print_table

if TYPE_CHECKING:
    from tunegate.training.run.curves import Run


@click.group()
def command() -> None:
    """Look at training runs: one, or several over one another."""


@command.command()
@click.argument("names", nargs=-1, required=True, metavar="RUN...")
@click.option("--html", "as_html", is_flag=True, help="Write the curves as one page, curves.html beside the first run.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="The page's file instead.")
@click.option("--store", "store_uri", envvar=environment.STORE, show_envvar=True, help="The store, for MODEL/RUN.")
@click.option("--endpoint-url", envvar=environment.ENDPOINT_URL, show_envvar=True, help="The store's S3 endpoint.")
def show(
    names: tuple[str, ...], as_html: bool, output: Path | None, store_uri: str | None, endpoint_url: str | None
) -> None:
    """Show how each RUN went: a folder (the --output_dir of `tunegate train`), or MODEL/RUN of the store.

    The page has loss, validation loss, learning rate, gradient norm, tokens/s and what became of the rows.
    """
    from tunegate.api.errors import UsageError
    from tunegate.files import disk_errors_as
    from tunegate.training.run.curves import PAGE, render

    runs: list[Run] = []
    for name in names:
        found = _read(name, store_uri, endpoint_url)
        alike = sum(other.name.partition(" (")[0] == found.name for other in runs)
        runs.append(replace(found, name=f"{found.name} ({alike + 1})") if alike else found)
    if not as_html and output is None:
        rows = []
        for run in runs:
            last = [run.last(measure) for measure in run.curves]
            rows.append((run.name, *("-" if value is None else f"{value:.4g}" for value in last)))
        print_table("Runs, at their last steps", ("run", "loss", "validation", "rate", "gradient", "tokens/s"), rows)
        return
    page = output or Path(names[0] if Path(names[0]).is_dir() else ".") / PAGE
    with disk_errors_as(UsageError, page, "give another --output."):
        page.write_text(render(runs), encoding="utf-8")
    click.echo(f"The curves are in {page}")


def _read(name: str, store_uri: str | None, endpoint_url: str | None) -> Run:
    from tunegate.api.errors import UsageError
    from tunegate.cli.options import open_store
    from tunegate.training.run.curves import read_run, read_stored

    model, _, run = name.rpartition("/")
    if Path(name).is_dir() or store_uri is None or not model or "/" in model:
        if not Path(name).is_dir():
            raise UsageError(f"There is no run {name}; give its folder, or MODEL/RUN and --store.")
        return read_run(Path(name))
    return read_stored(open_store(store_uri, endpoint_url), model, run)
