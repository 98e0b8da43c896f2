"""`tunegate merge`: an adapter as whole weights, in a folder or as a version."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import cast

import click

from tunegate.api.codec import to_json
from tunegate.api.errors import UsageError
from tunegate.cli.options import json_option, open_store, store_options, transfer_bar


@click.command()
@click.argument("version")
@click.argument("folder", required=False, type=click.Path(path_type=Path, file_okay=False))
@click.option("--publish", "name", metavar="NAME", help="Publish the result as this version instead.")
@store_options
@json_option
def command(
    version: str, folder: Path | None, name: str | None, store_uri: str, endpoint_url: str | None, as_json: bool
) -> None:
    """Put VERSION, a LoRA or P-tuned adapter, into its base: in a new FOLDER, or as a version.

    The result answers as the adapter on its base does, under the same system prompt, and any engine can load it.
    """
    if (folder is None) == (name is None):
        raise UsageError("Say where the merged model goes: either a FOLDER, or --publish NAME.")
    if folder is not None and folder.exists():
        raise UsageError(f"{folder} exists; name a folder that does not exist yet.")
    from tunegate.models.derive import merge_to_folder, merge_version

    store = open_store(store_uri, endpoint_url)
    found = store.resolve(version)
    with redirect_stdout(sys.stderr):  # libraries print as they load; standard output is for results
        if name is None:
            merge_to_folder(store, found, cast("Path", folder))
        else:
            with transfer_bar(f"Merging {found.name} into {name}") as progress:
                made = merge_version(store, found, name, progress)
    if name is None:
        click.echo(f"{found.name} is merged in {folder}", err=True)
    else:
        click.echo(to_json(made) if as_json else f"{made.uri} {made.digest}", nl=not as_json)
