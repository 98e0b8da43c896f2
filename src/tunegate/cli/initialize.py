"""`tunegate initialize`: bring one pinned version in front of a server, as KServe asks a storage initializer to."""

from __future__ import annotations

import time
from pathlib import Path

import click

from tunegate.cli.options import open_store, store_options

_SECONDS_BETWEEN_LINES = 5.0


@click.command(short_help="Bring a pinned version in front of a server.")
@click.argument("uri")
@click.argument("target", type=click.Path(file_okay=False, path_type=Path))
@store_options
def command(uri: str, target: Path, store_uri: str, endpoint_url: str | None) -> None:
    """Fill the folder TARGET with the version that URI names and pins, as tunegate://sha256-<digest>/<version>/.

    Every byte is verified. An adapter's base comes along, under TARGET/base. Started again, it resumes.
    """
    from tunegate.api.pinned import parse_storage_uri

    wanted = parse_storage_uri(uri)
    store = open_store(store_uri, endpoint_url)
    from tunegate.models.mount import deliver

    shown = time.monotonic()

    def progress(done: int, total: int) -> None:
        """Every few seconds a line: a log has none to draw a bar on."""
        nonlocal shown
        now = time.monotonic()
        if now - shown >= _SECONDS_BETWEEN_LINES or done == total:
            shown = now
            click.echo(f"{done / 1e6:.0f} of {total / 1e6:.0f} MB", err=True)

    deliver(store, wanted, target, progress)
    click.echo(f"{wanted.name} ({wanted.digest}) is complete in {target}", err=True)
