"""`tunegate serve`: one version of a model over HTTP."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import click

from tunegate import logs
from tunegate.api import environment
from tunegate.api.digest import short
from tunegate.api.errors import UsageError
from tunegate.cli.options import engine_options, store_options
from tunegate.processes import GRACE_SECONDS


@click.command()
@click.argument("version", required=False)
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Serve what `tunegate initialize` left in this folder, instead of a VERSION from the store.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option(
    "--model-name", envvar=environment.MODEL_NAME, help="The name clients ask for; by default the version's model."
)
@click.option(
    "--engine",
    "program",
    type=click.Choice(["transformers", "vllm"]),
    default="transformers",
    show_default=True,
    help="The program that generates text; it is started here.",
)
@click.option(
    "--tensor-parallel-size",
    "parallel",
    type=click.IntRange(1),
    help="Over how many GPUs vLLM spreads the model; by default over all that it may use.",
)
@click.option(
    "--quantization",
    type=click.Choice(["int8", "int4", "fp8"]),
    help="Round the weights before they are served, for trying: `tunegate quantize` makes a version to evaluate.",
)
@click.option(
    "--share-base",
    is_flag=True,
    help="Compute a LoRA beside its base's weights instead of merging them: servers of one base then share its memory.",
)
@engine_options
@click.option(
    "--engine-control",
    envvar=environment.ENGINE_CONTROL,
    show_envvar=True,
    metavar="URL",
    help="Where the engine at --engine-url, started by `tunegate engine`, loads the adapters that share it.",
)
@click.option(
    "--grace-seconds",
    envvar=environment.GRACE,
    show_envvar=True,
    type=click.FloatRange(min=3),
    default=GRACE_SECONDS,
    show_default=True,
    help="When the server is killed after SIGTERM; until 2 seconds before it finishes the answers under way.",
)
@click.option(
    "--keys",
    envvar=environment.KEYS,
    show_envvar=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file that `tunegate keys create` wrote: only who has one of its keys is answered. Default: everybody.",
)
@click.option(
    "--capacity",
    type=click.IntRange(1),
    help="How many requests may be under way; further ones get status 429 and the time to ask again. "
    "Default: 128 for the embedded engine, 1024 for others.",
)
@click.option(
    "--log-content/--no-log-content",
    envvar=environment.LOG_CONTENT,
    show_envvar=True,
    default=True,
    show_default=True,
    help="Whether texts of answers and feedback are logged, redacted, or numbers alone.",
)
@click.option(
    "--cors-origin",
    "cors_origins",
    envvar=environment.CORS_ORIGINS,
    show_envvar=True,
    multiple=True,
    metavar="ORIGIN",
    help="A page of this origin, such as https://shop.example, may ask from a browser; give it again for more. "
    "* is any page. Default: only the playground.",
)
@click.option(
    "--trusted-proxy",
    "trusted_proxies",
    envvar=environment.TRUSTED_PROXIES,
    show_envvar=True,
    multiple=True,
    metavar="NETWORK",
    help="A proxy, or a network of them such as 10.0.0.0/8, whose X-Forwarded-For says where a request comes from; "
    "give it again for more. Verdicts of unnamed users may be capped by it. Default: this machine.",
)
@store_options
def command(
    version: str | None,
    folder: Path | None,
    program: Literal["transformers", "vllm"],
    parallel: int | None,
    quantization: Literal["int8", "int4", "fp8"] | None,
    share_base: bool,
    engine_url: str | None,
    engine_model: str | None,
    engine_control: str | None,
    model_name: str | None,
    host: str,
    port: int,
    grace_seconds: float,
    keys: Path | None,
    capacity: int | None,
    log_content: bool,
    cors_origins: tuple[str, ...],
    trusted_proxies: tuple[str, ...],
    store_uri: str,
    endpoint_url: str | None,
) -> None:
    """Serve VERSION (name, URI or digest) with OpenAI's API, KServe's health routes and signed answers.

    Its bytes are verified against the digest before they are served; with --engine-url, whoever started that engine
    vouches for them, and it is asked for the name clients use unless --engine-model says another.
    With --engine-control, versions share that engine, and what it answers is compared with this version's evaluation.
    TUNEGATE_FEEDBACK_KEY holds the key that signs answers: the same for all servers of a model.
    """
    if (version is None) == (folder is None):
        raise UsageError("Name what to serve: either a VERSION in the store, or a --folder that holds one.")
    from tunegate.serving.config import EngineConfig, serve_config
    from tunegate.serving.launch import start_engine

    engine_key = os.environ.get(environment.ENGINE_KEY) if engine_url else None
    certificate = os.environ.get(environment.ENGINE_CERTIFICATE) if engine_url else None
    logs.configure()
    config = serve_config(
        store_uri,
        folder or str(version),
        EngineConfig(
            program,
            engine_url,
            engine_model,
            parallel,
            quantization,
            engine_key,
            Path(certificate) if certificate else None,
            engine_control,
            share_base,
        ),
        endpoint_url=endpoint_url,
        model=model_name,
        feedback_key=os.environ.get(environment.FEEDBACK_KEY),
        host=host,
        port=port,
        grace_seconds=grace_seconds,
        keys=keys,
        capacity=capacity,
        log_content=log_content,
        cors_origins=_split(cors_origins),
        trusted_proxies=_split(trusted_proxies),
    )
    with start_engine(config) as engine:
        from tunegate.serving.app import run  # takes seconds, in which the engine starts

        named = f"{config.model} ({short(config.served.version.digest)})"
        run(config, engine, lambda url: click.echo(f"{named} answers at {url}/v1"))


def _split(given: tuple[str, ...]) -> tuple[str, ...]:
    """What was given one by one, or with commas between in a variable."""
    return tuple(one for each in given for one in each.split(",") if one)
