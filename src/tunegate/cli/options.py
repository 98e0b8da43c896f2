"""What several verbs share: where the store is, and how results are printed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tunegate.api import environment

if TYPE_CHECKING:
    from tunegate.local.state import Home
    from tunegate.store import Progress, Store

F = TypeVar("F", bound=Callable[..., Any])


def store_options(command: F) -> F:
    """Add `--store` and `--endpoint-url`, passed on as `store_uri` and `endpoint_url`."""
    return _with_store(command, required=True)


def optional_store_options(command: F) -> F:
    """The same for a verb that needs no store: `store_uri` may be None."""
    return _with_store(command, required=False)


def engine_options(command: F) -> F:
    """Add `--engine-url` and `--engine-model`: an engine that somebody else runs, which has the weights."""
    command = click.option(
        "--engine-model",
        envvar=environment.ENGINE_MODEL,
        help="What the engine at --engine-url calls the model: a name, or a template, such as {model}-{digest} or "
        "{run}-{checkpoint}, where it has each version under a name of its own.",
    )(command)
    return click.option(
        "--engine-url",
        envvar=environment.ENGINE_URL,
        help="An engine that already has the version's weights, such as vLLM, by its URL. "
        f"{environment.ENGINE_KEY} holds the key that it may ask for.",
    )(command)


def _with_store(command: F, *, required: bool) -> F:
    command = click.option(
        "--endpoint-url",
        envvar=environment.ENDPOINT_URL,
        help="The S3 endpoint, where it is not AWS's. Credentials come from the usual AWS variables or files.",
    )(command)
    return click.option(
        "--store",
        "store_uri",
        envvar=environment.STORE,
        required=required,
        metavar="s3://BUCKET[/PREFIX]",
        help=f"The model store; also read from {environment.STORE}.",
    )(command)


def home_option(command: F) -> F:
    """Add `--home`, passed on as a `Home`."""

    def to_home(_ctx: click.Context, _param: click.Parameter, folder: Path) -> Home:
        from tunegate.local.state import Home

        return Home(folder)

    return click.option(
        "--home",
        envvar=environment.HOME,
        default=".tunegate",
        show_default=True,
        type=click.Path(file_okay=False, path_type=Path),
        callback=to_home,
        help=f"The folder of the local platform; also read from {environment.HOME}.",
    )(command)


def json_option(command: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts instead of a table.")(command)


def open_store(store_uri: str, endpoint_url: str | None) -> Store:
    from tunegate.store import Store

    return Store.open(store_uri, endpoint_url=endpoint_url)


@contextmanager
def transfer_bar(title: str) -> Iterator[Progress | None]:
    """A bar on standard error when a person looks at it."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bars:
        bar = bars.add_task(title, total=None)
        yield lambda done, total: bars.update(bar, completed=done, total=total)


@contextmanager
def step_bars() -> Iterator[Callable[[str, int, int], None] | None]:
    """A bar for each step of something long, of what is done in it, on standard error when a person looks at it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bars:
        known: dict[str, Any] = {}

        def show(step: str, done: int, total: int) -> None:
            if step not in known:
                known[step] = bars.add_task(step, total=total)
            bars.update(known[step], completed=done, total=total)

        yield show


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table for a person, as wide as the terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")  # a name that is cut off can't be copied
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    Console().print(table)
