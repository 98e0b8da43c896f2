"""`tunegate quantize`: a version with smaller weights, made from a version and judged as any other."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout

import click

from tunegate.api.codec import to_json
from tunegate.api.digest import short
from tunegate.cli.options import json_option, open_store, store_options, transfer_bar


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
    from tunegate.models.derive import quantize_version

    store = open_store(store_uri, endpoint_url)
    found = store.resolve(version)
    # libraries print as they load; standard output is for results
    with redirect_stdout(sys.stderr), transfer_bar(f"Quantizing {found.name}") as progress:
        made, result = quantize_version(store, found, method, name, progress)
    sizes = f"{result.bytes_before / 1e6:.1f} MB became {result.bytes_now / 1e6:.1f} MB"
    error = f"mean error of the weights {result.error:.2%}"
    click.echo(f"{made.name} ({short(made.digest)}): {sizes}, {error}", err=True)
    click.echo(to_json(made) if as_json else f"{made.uri} {made.digest}", nl=not as_json)
