"""`tunegate quickstart`: the whole story on this machine."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import sys
import threading
import time
from pathlib import Path

import click

from tunegate.api.codec import to_json
from tunegate.api.errors import UsageError

DONE = "quickstart.json"


@click.command()
@click.option(
    "--home", default=".tunegate/quickstart", show_default=True, type=click.Path(file_okay=False, path_type=Path)
)
@click.option(
    "--base",
    default="smollm2-135m",
    show_default=True,
    type=click.Choice(["smollm2-135m", "tiny"]),
    help="What to start from; tiny is a model of 0.8 M parameters made on the spot.",
)
@click.option("--port", type=int, help="Where applications ask, on 127.0.0.1. Default: any free one.")
@click.option("--keep", is_flag=True, help="Leave it all running until Ctrl-C.")
@click.option("--output", default=DONE, show_default=True, type=click.Path(dir_okay=False, path_type=Path))
def command(home: Path, base: str, port: int | None, keep: bool, output: Path) -> None:
    """From a base model to a promoted one, with a rejection and a rollback on the way, in a few minutes.

    Stopped half-way it resumes where it was; after its end it starts anew.
    """
    from tunegate.local.state import Home, write
    from tunegate.processes import free_port
    from tunegate.quickstart.report import render
    from tunegate.quickstart.run import Quickstart
    from tunegate.quickstart.scenario import STORIES

    make_room(home)
    began = time.monotonic()

    def report_line(line: str) -> None:
        click.echo(f"[{time.monotonic() - began:4.0f} s] {line}")

    quickstart = Quickstart(Home(home), STORIES[base], port or free_port(), report_line)
    with quickstart.run() as (platform, report):
        write(home / DONE, to_json(report))
        output.write_bytes(to_json(report))
        click.echo(render(report))
        click.echo(
            f"\nAsked on the one URL: {report.sample.question}\nAnswered by the promoted model: {report.sample.answer}"
        )
        words = ["local", "ask", "--home", str(home), report.sample.question]
        click.echo(f"\nAsk it yourself:\n  {shlex.join([sys.argv[0], *words])}")
        click.echo(
            f"\nRecords: {output} and {home}; why a version is live: tunegate promotions explain --home {home} NAME"
        )
        if keep:
            click.echo(f"\nTalk to it in a browser: {platform.url}/ (everything runs until Ctrl-C)")
            with contextlib.suppress(KeyboardInterrupt):
                threading.Event().wait()
        else:
            words = ["local", "up", "--home", str(home), "--port", str(platform.config.port)]
            click.echo(f"\nTalk to it in a browser:\n  {shlex.join([sys.argv[0], *words])}\nand open {platform.url}/")


def make_room(home: Path) -> None:
    """A finished quickstart makes room for a new one; the converted base model stays."""
    if not (home / DONE).exists():
        if home.exists() and not (home / "lock").exists() and any(home.iterdir()):
            raise UsageError(f"{home} holds something else; name an empty folder with --home.")
        return
    for path in home.iterdir():
        if path.name not in ("cache", "lock"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
