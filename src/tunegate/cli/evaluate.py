"""`tunegate evaluate`: measure a version on suites and keep the results in the store."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tunegate.api.codec import to_json
from tunegate.api.digest import short
from tunegate.api.errors import EvaluationError, UsageError
from tunegate.api.evaluation import Evaluation
from tunegate.api.versions import ModelVersion
from tunegate.cli.options import json_option, open_store, print_table, store_options
from tunegate.files import disk_errors_as

if TYPE_CHECKING:
    from tunegate.evaluation import Suite
    from tunegate.store import Store


@click.command()
@click.argument("version")
@click.option(
    "--suite",
    "suites",
    multiple=True,
    required=True,
    metavar="NAME|FOLDER",
    help="A suite that comes with tunegate, by name, or any by its folder; give it again for more.",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Ask only the first N questions of each suite.")
@click.option("--force", is_flag=True, help="Measure again, also where the store holds the result.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Also write the results to a file.")
@json_option
@store_options
def command(
    version: str,
    suites: tuple[str, ...],
    limit: int | None,
    force: bool,
    output: Path | None,
    as_json: bool,
    store_uri: str,
    endpoint_url: str | None,
) -> None:
    """Measure VERSION (name, URI or digest) on suites.

    A result that the store holds for the same version and the same questions is shown, not measured again. A result
    of --limit is kept, but never in place of one over more questions.
    """
    from tunegate.evaluation import load_suite

    if output and not output.parent.is_dir():
        raise UsageError(f"The folder {output.parent} does not exist; make it or choose another --output.")
    loaded = [load_suite(suite, limit) for suite in dict.fromkeys(suites)]
    _refuse_same_names([suite.name for suite in loaded])
    store = open_store(store_uri, endpoint_url)
    results = _results(store, store.resolve(version), loaded, limit, force)
    if output:
        _write(output, to_json(results))
    if as_json:
        click.echo(to_json(results), nl=False)
    else:
        _print(results)


def _results(
    store: Store, version: ModelVersion, suites: Sequence[Suite], limit: int | None, force: bool
) -> list[Evaluation]:
    """The result of each suite: as the store holds it, or measured and saved."""
    from tunegate.store.evaluations import find, save

    held = {suite.name: find(store, version.digest, suite.name) for suite in suites}
    current = {
        suite.name: result
        for suite in suites
        if not force and (result := held[suite.name]) and result.suite_digest == suite.digest
    }
    missing = [suite for suite in suites if suite.name not in current]
    for result in _measure(store, version, missing) if missing else []:
        current[result.suite] = result
        before = held[result.suite]
        if limit is None or before is None or len(before.records) <= len(result.records):
            save(store, result)
    return [current[suite.name] for suite in suites]


def _refuse_same_names(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"Two suites call themselves {name}; change the name in one suite.yaml.")


def _measure(store: Store, version: ModelVersion, suites: Sequence[Suite]) -> list[Evaluation]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from tunegate.models import materialize
    from tunegate.store.release import read_release

    # Beside servers on the same processors, threads that wait by spinning slow each other down several times over.
    # The OpenMP runtime reads this when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    # libraries print as they load; standard output is for results
    with redirect_stdout(sys.stderr), Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("fetching the version", total=None)
        folder = materialize(store, version, whole=False)
        prompt = read_release(store, version).system_prompt
        bar.update(task, description="loading the model")
        from tunegate.evaluation.run import evaluate_all

        def show(answered: int, total: int) -> None:
            bar.update(task, description="asking questions", completed=answered, total=total)

        return evaluate_all(folder, version, suites, system_prompt=prompt, progress=show)


def _write(path: Path, text: bytes) -> None:
    with disk_errors_as(EvaluationError, path, "the store has the results."):
        path.write_bytes(text)


def _print(results: Sequence[Evaluation]) -> None:
    rows = [
        (result.suite, metric.name, _number(metric.value), _number(metric.stderr), metric.n)
        for result in results
        for metric in result.metrics
    ]
    title = f"{results[0].version} ({short(results[0].digest)})"
    print_table(title, ("suite", "metric", "value", "±", "n"), rows)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
