"""`tunegate quantize`: a version with smaller weights, made from a version and judged as any other."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from tunegate.api.codec import to_json
from tunegate.api.digest import short
from tunegate.api.pinned import base_of
from tunegate.api.versions import ModelVersion, Release
from tunegate.cli.options import json_option, open_store, store_options
from tunegate.models.derive import check_name, publish_derived, whole_release

if TYPE_CHECKING:
    from tunegate.store import Store


@click.command()
@click.argument("version")
@click.option(
    "--method",
    type=click.Choice(["int8", "int4", "fp8"]),
    default="int8",
    show_default=True,
    help="int8 loses least. int4 is smallest and loses most. fp8 also computes in 8 bits, on GPUs that can.",
)
@click.option("--publish", "name", metavar="NAME", help="By default MODEL/RUN-METHOD/checkpoint-STEP of VERSION.")
@store_options
@json_option
def command(
    version: str, method: str, name: str | None, store_uri: str, endpoint_url: str | None, as_json: bool
) -> None:
    """Publish VERSION with weights of 8 or 4 bits: smaller to store, to load and, in vLLM, to compute with.

    It has a digest of its own, so it is evaluated and promoted as any other version; its base is VERSION. An adapter is
    merged first. No data is needed. --engine vllm computes with the small weights; --engine transformers unpacks them
    when it loads, so there they save no time.
    """
    store = open_store(store_uri, endpoint_url)
    found = store.resolve(version)
    model, run, checkpoint = found.name.split("/")
    name = name or f"{model}/{run}-{method}/{checkpoint}"
    check_name(name, found)
    release = whole_release(store, found, base_of(found))
    with redirect_stdout(sys.stderr):  # libraries print as they load; standard output is for results
        made, said = _make(store, found, method, name, release)
    click.echo(said, err=True)
    click.echo(to_json(made) if as_json else f"{made.uri} {made.digest}", nl=not as_json)


def _make(store: Store, version: ModelVersion, method: str, name: str, release: Release) -> tuple[ModelVersion, str]:
    """The published version, and in a sentence what it cost."""
    from tunegate.models import default_cache, materialize
    from tunegate.models.quantize import quantize

    source = materialize(store, version)
    with TemporaryDirectory(prefix="quantizing-", dir=default_cache()) as scratch:  # where there is room for a model
        folder = Path(scratch) / "model"
        result = quantize(source, folder, method)
        made = publish_derived(
            store,
            version,
            folder,
            name,
            kind="tunegate quantize",
            release=release,
            quantization=method,
            weight_error=round(result.error, 4),
        )
    sizes = f"{result.bytes_before / 1e6:.1f} MB became {result.bytes_now / 1e6:.1f} MB"
    return made, f"{made.name} ({short(made.digest)}): {sizes}, mean error of the weights {result.error:.2%}"
