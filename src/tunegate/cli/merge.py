"""`tunegate merge`: an adapter as whole weights, in a folder or as a version."""

from __future__ import annotations

import shutil
import sys
from contextlib import redirect_stdout
from pathlib import Path

import click

from tunegate.api.codec import to_json, to_yaml
from tunegate.api.errors import UsageError
from tunegate.api.versions import RELEASE
from tunegate.cli.options import json_option, open_store, store_options
from tunegate.models.derive import check_name, publish_derived, whole_release


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
    store = open_store(store_uri, endpoint_url)
    found = store.resolve(version)
    if name is not None:
        check_name(name, found)
    from tunegate.models import materialize
    from tunegate.models.materialize import ADAPTERS

    if found.format not in ADAPTERS:
        raise UsageError(f"{found.name} is whole already; fetch it with: tunegate models fetch {found.name} FOLDER")
    release = whole_release(store, found, found.base)
    with redirect_stdout(sys.stderr):  # libraries print as they load; standard output is for results
        merged = materialize(store, found)
    if folder is not None:
        shutil.copytree(merged, folder)
        (folder / RELEASE).write_bytes(to_yaml(release))
        click.echo(f"{found.name} is merged in {folder}", err=True)
    elif name is not None:
        made = publish_derived(store, found, merged, name, kind="tunegate merge", release=release)
        click.echo(to_json(made) if as_json else f"{made.uri} {made.digest}", nl=not as_json)
