"""`tunegate models`: versions in the store, from the command line."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import cast

import click

from tunegate.api.codec import to_json
from tunegate.api.digest import short
from tunegate.api.errors import UsageError
from tunegate.api.pinned import base_of
from tunegate.api.versions import Format, ModelVersion, Producer, Release
from tunegate.cli import compare, gc
from tunegate.cli.options import json_option, open_store, print_table, store_options, transfer_bar
from tunegate.files import disk_errors_as

FOLDER = click.Path(path_type=Path, file_okay=False)


@click.group()
def command() -> None:
    """Publish, fetch, list, show, compare, verify and delete versions in the store; show the curves of runs.

    A VERSION is a name MODEL/RUN/checkpoint-STEP, its URI, or at least 8 digits of its digest.
    """


@command.command()
@click.argument("source", metavar="FOLDER")
@click.argument("name", required=False)
@click.option("--base", metavar="VERSION", help="The version that an adapter needs, or that was tuned.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["huggingface", "lora-adapter", "prompt-adapter"]),
    help="What FOLDER holds; by default what its adapter_config.json says, and huggingface without one.",
)
@store_options
@json_option
def publish(
    source: str,
    name: str | None,
    base: str | None,
    format_: str | None,
    store_uri: str,
    endpoint_url: str | None,
    as_json: bool,
) -> None:
    """Publish FOLDER as the version NAME; the same bytes again change nothing.

    FOLDER may also be a model of a hub, hf://ORG/NAME@REVISION or ms://ORG/NAME@REVISION, which is fetched; without a
    NAME it gets one with its commit.
    """
    if source.startswith(("hf://", "ms://")):
        if base or format_:
            raise click.UsageError("a hub's model is published as it is: leave out --base and --format")
        _print_version(_published_from_hub(source, name, store_uri, endpoint_url), as_json)
        return
    from tunegate.models.fit import require_fit, require_whole
    from tunegate.models.prompt_tuning import format_of

    folder = Path(source)
    if name is None:
        raise click.UsageError("name the version: tunegate models publish FOLDER MODEL/RUN/checkpoint-STEP")
    format_ = format_ or format_of(folder)
    if format_ != "huggingface" and base is None:
        raise click.UsageError(f"a {format_} needs its base model: add --base VERSION")
    store = open_store(store_uri, endpoint_url)
    tuned = store.resolve(base) if base else None
    if tuned and format_ != "huggingface":
        require_fit(store, folder, tuned)
    else:
        require_whole(folder)
    release = Release(format=cast("Format", format_), base=base_of(tuned) if tuned else None)
    with transfer_bar(f"Publishing {name}") as progress:
        version = store.publish(folder, name, release=release, producer=Producer(kind="cli"), progress=progress)
    _print_version(version, as_json)


def _published_from_hub(source: str, name: str | None, store_uri: str, endpoint_url: str | None) -> ModelVersion:
    from tunegate.models.hub import parse_hub, publish_from_hub

    model = parse_hub(source)
    assert model is not None
    with transfer_bar(f"Publishing {source}") as progress:
        return publish_from_hub(open_store(store_uri, endpoint_url), model, name, progress)


@command.command()
@click.argument("version")
@click.argument("folder", type=FOLDER)
@click.option("--digest", help="Refuse the version if its digest is another one.")
@click.option("--resume", is_flag=True, help="Also fetch what only a training run needs, to resume.")
@store_options
@json_option
def fetch(
    version: str,
    folder: Path,
    digest: str | None,
    resume: bool,
    store_uri: str,
    endpoint_url: str | None,
    as_json: bool,
) -> None:
    """Fetch VERSION into FOLDER: complete and verified, or not at all."""
    store = open_store(store_uri, endpoint_url)
    with transfer_bar(f"Fetching {version}") as progress:
        store.fetch(version, folder, digest=digest, include_resume=resume, progress=progress)
    _print_version(store.resolve(version), as_json)


@command.command("list")
@click.argument("model", required=False)
@store_options
@json_option
def list_(model: str | None, store_uri: str, endpoint_url: str | None, as_json: bool) -> None:
    """List the complete versions, of MODEL or of all, oldest first."""
    versions = open_store(store_uri, endpoint_url).list(model)
    if as_json:
        click.echo(to_json(versions), nl=False)
        return
    rows = [(v.name, short(v.digest), v.format, _local(v.created)) for v in versions]
    print_table(f"{len(versions)} versions in {store_uri}", ("Name", "Digest", "Format", "Created"), rows)


@command.command()
@click.argument("version")
@store_options
@json_option
def show(version: str, store_uri: str, endpoint_url: str | None, as_json: bool) -> None:
    """Show the manifest of VERSION: its files, and what it was made from."""
    manifest = open_store(store_uri, endpoint_url).manifest(version)
    if as_json:
        click.echo(to_json(manifest), nl=False)
        return
    producer = manifest.producer
    facts = [
        ("Digest", manifest.digest),
        ("Format", manifest.format),
        ("Created", _local(manifest.created)),
        ("Base model", f"{manifest.base.uri} {short(manifest.base.digest)}" if manifest.base else ""),
        ("Made by", " ".join(part for part in (producer.kind, producer.run, producer.code_version) if part)),
        ("Data sets", ", ".join(f"{data.name} {short(data.digest)} ({data.rows} rows)" for data in producer.datasets)),
        ("Made from", f"{producer.derived.uri} {short(producer.derived.digest)}" if producer.derived else ""),
        ("Step", producer.step),
        ("Loss", producer.loss),
    ]
    print_table(manifest.name, ("", ""), [(name, value) for name, value in facts if value not in (None, "")])
    files = [(file.path, f"{file.size:,}", file.sha256[:12]) for file in manifest.files]
    print_table(f"{len(files)} files, {manifest.size:,} bytes", ("File", "Bytes", "sha256"), files)


@command.command()
@click.argument("version")
@store_options
@json_option
def verify(version: str, store_uri: str, endpoint_url: str | None, as_json: bool) -> None:
    """Read every byte of VERSION again and compare it with the manifest."""
    store = open_store(store_uri, endpoint_url)
    with transfer_bar(f"Verifying {version}") as progress:
        manifest = store.verify(version, progress)
    if as_json:
        click.echo(to_json(manifest), nl=False)
    else:
        click.echo(
            f"{manifest.name} is intact: {len(manifest.files)} files, {manifest.size:,} bytes, {manifest.digest}"
        )


@command.command()
@click.argument("run")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Also draw it, as a PNG.")
@store_options
@json_option
def curve(run: str, output: Path | None, store_uri: str, endpoint_url: str | None, as_json: bool) -> None:
    """Show the loss of RUN (MODEL/RUN) and what its checkpoints were measured at, step by step."""
    from tunegate.training.run.curve import read_curve

    model, _, name = run.rpartition("/")
    if not model or "/" in model:
        raise UsageError(f"{run!r} is not a run; write MODEL/RUN, as versions are named: MODEL/RUN/checkpoint-STEP.")
    history, points = read_curve(open_store(store_uri, endpoint_url), model, name)
    if output:
        from tunegate.training.loop.plot import draw

        with disk_errors_as(UsageError, output, "give another --output."):
            draw(history, output, points)
    losses = [(int(entry["step"]), float(entry["loss"])) for entry in history if "loss" in entry]
    if as_json:
        click.echo(
            to_json({"loss": [{"step": step, "loss": loss} for step, loss in losses], "scores": points}), nl=False
        )
        return
    rows = []
    for point in points:
        loss = next((loss for step, loss in reversed(losses) if step <= point.step), None)
        interval = "-" if point.low is None or point.high is None else f"{point.low:.3f} to {point.high:.3f}"
        shown = "-" if loss is None else f"{loss:.4f}"
        rows.append((point.step, shown, f"{point.suite} {point.metric}", f"{point.value:.3f}", interval))
    print_table(f"{run}, measured at {len(points)} points", ("step", "loss", "metric", "value", "95 %"), rows)


command.add_command(compare.command, "compare")
command.add_command(gc.delete)
command.add_command(gc.collect)


def _print_version(version: ModelVersion, as_json: bool) -> None:
    click.echo(to_json(version) if as_json else f"{version.uri} {version.digest}", nl=not as_json)


def _local(time: datetime) -> str:
    return time.astimezone().strftime("%Y-%m-%d %H:%M:%S")
