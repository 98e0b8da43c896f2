"""`tunegate serve`: one version of a model over HTTP."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import click

from tunegate.api import environment
from tunegate.api.digest import short
from tunegate.api.errors import UsageError
from tunegate.api.versions import ModelVersion, Release
from tunegate.cli.options import open_store, store_options

if TYPE_CHECKING:
    from tunegate.serving.app import ServeConfig
    from tunegate.store import Store


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
    type=click.Choice(["transformers", "vllm"]),
    default="transformers",
    show_default=True,
    help="The program that generates text; it is started here.",
)
@click.option("--engine-url", help="An engine that already has the version's weights, such as vLLM, by its URL.")
@click.option(
    "--engine-model", help="What the engine at --engine-url calls the model; by default the name clients use."
)
@store_options
def command(
    version: str | None,
    folder: Path | None,
    engine: Literal["transformers", "vllm"],
    engine_url: str | None,
    engine_model: str | None,
    store_uri: str,
    endpoint_url: str | None,
    **settings: Any,
) -> None:
    """Serve VERSION (name, URI or digest) with OpenAI's API, KServe's health routes and signed answers.

    Its bytes are verified against the digest before they are served; with --engine-url, whoever started that engine
    vouches for them. TUNEGATE_FEEDBACK_KEY holds the key that signs answers: the same for all servers of a model.
    """
    if (version is None) == (folder is None):
        raise UsageError("Name what to serve: either a VERSION in the store, or a --folder that holds one.")
    if engine_model and not engine_url:
        raise UsageError("--engine-model says what the engine at --engine-url calls the model; give both.")
    if engine_url and not engine_url.startswith(("http://", "https://")):
        raise UsageError(f"--engine-url {engine_url} is not a URL; write it as http://HOST:PORT.")
    if engine_url and engine != "transformers":
        raise UsageError("--engine starts an engine, and --engine-url names one that runs; give one of them.")
    key = _feedback_key()
    whole = engine != "transformers" or engine_url is not None
    served = (
        _mounted(folder, whole, store_uri, endpoint_url)
        if folder
        else _from_store(str(version), whole, engine_url is None, store_uri, endpoint_url)
    )
    config = _config(served, key, engine=engine, engine_url=engine_url, engine_model=engine_model, **settings)
    from tunegate import logs
    from tunegate.serving.app import run

    logs.configure()

    def say(url: str) -> None:
        click.echo(f"{config.model} ({short(config.version.digest)}) answers at {url}/v1")

    run(config, on_ready=say)


class _Served(NamedTuple):
    """What is served. The store keeps what users say of it."""

    version: ModelVersion
    release: Release
    folder: Path | None
    store: Store


def _feedback_key() -> bytes:
    from tunegate.feedback import parse_key

    return parse_key(os.environ.get(environment.FEEDBACK_KEY))


def _from_store(version: str, whole: bool, fetch: bool, store_uri: str, endpoint_url: str | None) -> _Served:
    """`whole`: the engine takes whole models only."""
    store = open_store(store_uri, endpoint_url)
    found = store.resolve(version)
    from tunegate.models import materialize
    from tunegate.models.materialize import refuse_prefix
    from tunegate.models.prompt_tuning import ADAPTER_CONFIG, kind_of
    from tunegate.store.release import read_release

    if whole and found.format == "prompt-adapter":
        refuse_prefix(kind_of(store.get(f"{found.name}/{ADAPTER_CONFIG}"), found.name), found.name)
    folder = materialize(store, found, whole=whole) if fetch else None
    return _Served(found, read_release(store, found), folder, store)


def _mounted(folder: Path, whole: bool, store_uri: str, endpoint_url: str | None) -> _Served:
    """Nothing is asked of the store: a server that starts again while the store is down must still answer."""
    from tunegate.models import default_cache
    from tunegate.models.mount import read_mounted, servable
    from tunegate.store import Store

    store = Store.at(store_uri, endpoint_url=endpoint_url)
    manifest, release = read_mounted(folder)
    return _Served(store.version_of(manifest), release, servable(folder, manifest, default_cache(), whole=whole), store)


def _config(served: _Served, key: bytes, *, model_name: str | None, port: int, **settings: Any) -> ServeConfig:
    from tunegate.models import default_cache
    from tunegate.serving.app import ServeConfig

    return ServeConfig(
        version=served.version,
        release=served.release,
        model=model_name or served.version.model,
        feedback_key=key,
        store=served.store,
        folder=served.folder,
        engine_log=default_cache() / "logs" / f"engine-{short(served.version.digest)}-{port}.log",
        port=port,
        **settings,
    )
