"""`tunegate engine`: vLLM on a base model, which the LoRA versions of that base share."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click

from tunegate import logs
from tunegate.cli.options import open_store, store_options


@click.command(short_help="Run vLLM on a base model for all LoRA versions of it.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="The base model, as `tunegate initialize` left it there.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on, with both ports.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(1, 65535), help="Of vLLM's own API.")
@click.option(
    "--control-port",
    default=8081,
    show_default=True,
    type=click.IntRange(1, 65535),
    help="Where `tunegate serve --engine-control` asks for its version to be loaded.",
)
@click.option(
    "--max-adapters", default=8, show_default=True, type=click.IntRange(1), help="How many it has at once, at most."
)
@click.option(
    "--max-rank",
    default=64,
    show_default=True,
    type=click.IntRange(1, 512),
    help="Of every adapter, at most; memory is kept for it.",
)
@click.option(
    "--tensor-parallel-size",
    "parallel",
    type=click.IntRange(1),
    help="Over how many GPUs vLLM spreads the model; by default over all that it may use.",
)
@store_options
def command(
    folder: Path,
    host: str,
    port: int,
    control_port: int,
    max_adapters: int,
    max_rank: int,
    parallel: int | None,
    store_uri: str,
    endpoint_url: str | None,
) -> None:
    """Run vLLM on the base model in --folder, with adapters that come and go.

    Servers ask for their versions at the control port: `tunegate serve VERSION --engine-url URL --engine-control URL`.
    Each adapter is fetched from the store, verified, and there under its digest's name for as long as somebody serves
    it. Whoever reaches the ports may ask and load anything: keep them to this machine, or to a network of your own.
    """
    from tunegate.serving.engines.sharing import SharedConfig, run
    from tunegate.serving.listening import listen

    logs.configure()
    with closing(listen(host, control_port, "--control-port")) as control:
        store = open_store(store_uri, endpoint_url)
        config = SharedConfig(folder, store, host, port, control, max_adapters, max_rank, parallel)
        run(config, lambda: click.echo(f"the engine answers at http://{host}:{port}, and lends at port {control_port}"))
