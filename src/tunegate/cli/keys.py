"""`tunegate keys`: the API keys of a server."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from tunegate.api import environment
from tunegate.api.codec import to_yaml
from tunegate.api.errors import UsageError
from tunegate.files import replace_file


@click.group()
def command() -> None:
    """Make the API keys that `tunegate serve --keys` asks for."""


@command.command()
@click.argument("name")
@click.option(
    "--keys",
    "path",
    envvar=environment.KEYS,
    show_envvar=True,
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file that holds the hashes of all keys; it is made where there is none.",
)
@click.option("--requests-per-minute", type=click.IntRange(1), help="How often the key may ask; default: no limit.")
@click.option("--concurrent", type=click.IntRange(1), help="How many of its requests may be under way; same default.")
def create(name: str, path: Path, requests_per_minute: int | None, concurrent: int | None) -> None:
    """Make a key for NAME, add its hash to the file and print the key: this once, as it is kept nowhere.

    A second key for a NAME replaces no other: servers take both until you delete the older entry from the file.
    """
    from tunegate.serving.auth import ApiKey, KeyFile, hash_of, new_key, read_keys

    key = new_key()
    known = read_keys(path).keys if path.exists() else ()
    entry = {
        "name": name,
        "sha256": hash_of(key),
        "created": datetime.now(UTC).replace(microsecond=0),
        "requestsPerMinute": requests_per_minute,
        "concurrent": concurrent,
    }
    try:
        added = msgspec.convert(entry, ApiKey)
    except msgspec.ValidationError:
        raise UsageError(f"{name!r} can't name a key; take letters, digits, '.', '_' and '-', at most 63.") from None
    replace_file(path, to_yaml(KeyFile(keys=(*known, added))))
    click.echo(key)
