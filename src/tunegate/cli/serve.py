"""`tunegate serve`: one version of a model over HTTP."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from tunegate.api.errors import UsageError
from tunegate.api.versions import short
from tunegate.cli.options import open_store, store_options

if TYPE_CHECKING:
    from tunegate.serving.server import ServeConfig


@click.command()
@click.argument("version")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option("--model-name", help="The name clients ask for; by default the version's model.")
@click.option("--engine-url", help="An engine that already has the version's weights, such as vLLM, by its URL.")
@click.option(
    "--engine-model", help="What the engine at --engine-url calls the model; by default the name clients use."
)
@store_options
def command(
    version: str,
    host: str,
    port: int,
    model_name: str | None,
    engine_url: str | None,
    engine_model: str | None,
    store_uri: str,
    endpoint_url: str | None,
) -> None:
    """Serve VERSION (name, URI or digest) with OpenAI's API, KServe's health routes and signed answers.

    Its bytes are verified against the digest before they are served; with --engine-url, whoever started that engine
    vouches for them. TUNEGATE_FEEDBACK_KEY holds the key that signs answers: the same for all servers of a model.
    """
    if engine_model and not engine_url:
        raise UsageError("--engine-model says what the engine at --engine-url calls the model; give both.")
    if engine_url and not engine_url.startswith(("http://", "https://")):
        raise UsageError(f"--engine-url {engine_url} is not a URL; write it as http://HOST:PORT.")
    config = _config(version, host, port, model_name, engine_url, engine_model, store_uri, endpoint_url)
    from tunegate.serving.server import run

    def say(url: str) -> None:
        click.echo(f"{config.model} ({short(config.version.digest)}) answers at {url}/v1")

    run(config, on_ready=say)


def _config(
    version: str,
    host: str,
    port: int,
    model_name: str | None,
    engine_url: str | None,
    engine_model: str | None,
    store_uri: str,
    endpoint_url: str | None,
) -> ServeConfig:
    from tunegate.feedback import parse_key
    from tunegate.feedback.ids import KEY_VARIABLE

    key = parse_key(os.environ.get(KEY_VARIABLE))
    store = open_store(store_uri, endpoint_url)
    found = store.resolve(version)
    from tunegate.models import default_cache, materialise
    from tunegate.serving.release import read_release
    from tunegate.serving.server import ServeConfig

    return ServeConfig(
        version=found,
        release=read_release(store, found),
        model=model_name or found.model,
        feedback_key=key,
        store=store,
        folder=None if engine_url else materialise(store, found),
        engine_log=default_cache() / "logs" / f"engine-{short(found.digest)}-{port}.log",
        engine_url=engine_url,
        engine_model=engine_model,
        host=host,
        port=port,
    )
