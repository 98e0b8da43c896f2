"""`tunegate initialize`: bring one pinned version in front of a server, as KServe asks a storage initializer to."""

from __future__ import annotations

import os
import time
from pathlib import Path

import click

from tunegate.api.errors import StoreError
from tunegate.cli.options import open_store, store_options

_SECONDS_BETWEEN_LINES = 5.0
# Nobody else sets it: a Secret for S3 is attached to the service account, and it names an endpoint.
_OF_KSERVE = "S3_ENDPOINT"


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
    from tunegate.models.mount import deliver

    shown = time.monotonic()

    def progress(done: int, total: int) -> None:
        """Every few seconds a line: a log has none to draw a bar on."""
        nonlocal shown
        now = time.monotonic()
        if now - shown >= _SECONDS_BETWEEN_LINES or done == total:
            shown = now
            click.echo(f"{done / 1e6:.0f} of {total / 1e6:.0f} MB", err=True)

    try:
        deliver(open_store(store_uri, endpoint_url), wanted, target, progress)
    except StoreError as error:
        if _OF_KSERVE not in os.environ:
            raise
        raise type(error)(
            f"{error} KServe has taken settings for S3 from a Secret of the pod's service account, such as "
            f"AWS_ENDPOINT_URL={endpoint_url}: take that Secret from the account, or set store.endpointUrl in the "
            "chart, which wins."
        ) from error
    click.echo(f"{wanted.name} ({wanted.digest}) is complete in {target}", err=True)
