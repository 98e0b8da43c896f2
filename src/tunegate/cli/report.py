"""`tunegate report`: what versions are worth beside each other, as a page for people and as JSON."""

from __future__ import annotations

from pathlib import Path

import click

from tunegate.api import environment
from tunegate.api.codec import to_json
from tunegate.api.errors import EvaluationError, UsageError
from tunegate.cli.options import open_store, optional_store_options
from tunegate.files import disk_errors_as, replace_file


@click.command(short_help="What versions are worth beside each other: a page, and JSON.")
@click.argument("versions", nargs=-1, metavar="VERSION...")
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where to write the page: one file that needs no other and no network.",
)
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Where to write it as JSON.")
@click.option(
    "--results",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE|FOLDER",
    help="Evaluations from files, as `tunegate evaluate --output` writes them, besides those of the store.",
)
@click.option(
    "--data",
    multiple=True,
    metavar="FILE|FOLDER|URI",
    help="A data set, or a folder with dataset_info.json: are the suites' questions in it? Give it again for more.",
)
@optional_store_options
def command(
    versions: tuple[str, ...],
    html: Path | None,
    json_file: Path | None,
    results: tuple[Path, ...],
    data: tuple[str, ...],
    store_uri: str | None,
    endpoint_url: str | None,
) -> None:
    """Put VERSIONs beside each other, by all results that the store or --results has; the first is what the others are
    compared with.

    Nothing is measured. What is missing, or was asked otherwise, is said and not compared.
    """
    from tunegate.report.gather import report_of
    from tunegate.report.page import render, summary

    if not store_uri and not results:
        raise UsageError(f"Name a store with --store or {environment.STORE}, or files of results with --results.")
    if not versions and store_uri and not results:
        raise UsageError("Name the versions, the one that the others are compared with first.")
    store = open_store(store_uri, endpoint_url) if store_uri else None
    report = report_of(versions, store, results, data, endpoint_url)
    for path, body in ((html, render(report).encode() if html else b""), (json_file, to_json(report))):
        if path:
            with disk_errors_as(EvaluationError, path, "name another file."):
                replace_file(path, body)
            click.echo(f"{path}: {len(report.versions)} versions, {len(report.suites)} suites.")
    for line in summary(report):
        click.echo(line)
    if not html and not json_file:
        click.echo("Give --html FILE for the page, --json FILE for all of it.")
