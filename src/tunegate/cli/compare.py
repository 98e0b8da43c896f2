"""`tunegate models compare`: what versions cost to train and what they are worth, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click

from tunegate.api.codec import Resource, to_json
from tunegate.api.evaluation import Evaluation
from tunegate.api.versions import Cost, Manifest, Training
from tunegate.cli.options import json_option, open_store, print_table, store_options


class Score(Resource, frozen=True, kw_only=True):
    """The first metric of a suite, which is its headline."""

    metric: str
    value: float | None = None
    stderr: float | None = None
    n: int


class Compared(Resource, frozen=True, kw_only=True):
    """One version: from its manifest, and from its evaluations by suite."""

    version: str
    digest: str
    method: str = ""
    trainable_parameters: int | None = None
    parameters: int | None = None
    seconds: float | None = None
    peak_memory_bytes: int | None = None
    loss: float | None = None
    bytes: int
    scores: dict[str, Score] = {}


@click.command(short_help="Compare versions by cost, size and scores.")
@click.argument("versions", nargs=-1, required=True, metavar="VERSION VERSION...")
@click.option("--markdown", is_flag=True, help="Print a Markdown table, for a report.")
@store_options
@json_option
def command(versions: tuple[str, ...], markdown: bool, store_uri: str, endpoint_url: str | None, as_json: bool) -> None:
    """Compare VERSIONs: trained parameters, time, memory, loss, size, and the score of every suite they were asked.

    Nothing is measured here: training leaves its figures in the manifest, `tunegate evaluate` the scores in the store.
    """
    from tunegate.store.evaluations import of_version

    store = open_store(store_uri, endpoint_url)
    manifests = [store.manifest(version) for version in dict.fromkeys(versions)]
    measured = [of_version(store, manifest.digest) for manifest in manifests]
    rows = [compared(manifest, results) for manifest, results in zip(manifests, measured, strict=True)]
    for suite in sorted(asked_differently([result for results in measured for result in results])):
        click.echo(f"{suite} had other questions for some of these versions; evaluate all of them again.", err=True)
    if as_json:
        click.echo(to_json(rows), nl=False)
        return
    names, cells = table(rows)
    if markdown:
        lines = [names, ["---"] * len(names), *cells]
        click.echo("\n".join(f"| {' | '.join(line)} |" for line in lines))
    else:
        turned = list(zip(names, *cells, strict=True))  # there are more figures than versions, mostly
        print_table("", turned[0], turned[1:])


def compared(manifest: Manifest, results: Sequence[Evaluation]) -> Compared:
    producer = manifest.producer
    training, derived = producer.training or Training(), producer.derived
    cost = training.cost or Cost()
    return Compared(
        version=manifest.name,
        digest=manifest.digest,
        method=", ".join(filter(None, (training.method, derived.quantization if derived else ""))),
        trainable_parameters=cost.trainable_parameters,
        parameters=cost.parameters,
        seconds=cost.seconds,
        peak_memory_bytes=cost.peak_memory_bytes,
        loss=producer.loss,
        bytes=sum(file.size for file in manifest.files if not file.path.startswith("resume/")),
        scores={result.suite: _headline(result) for result in results if result.metrics},
    )


def asked_differently(results: Sequence[Evaluation]) -> set[str]:
    """The suites whose results are not of the same questions."""
    digests = {(result.suite, result.suite_digest) for result in results}
    suites = [suite for suite, _ in digests]
    return {suite for suite in suites if suites.count(suite) > 1}


def table(rows: Sequence[Compared]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells; a figure that nobody has is a dash."""
    columns: dict[str, Callable[[Compared], str]] = {
        "version": lambda row: row.version,
        "method": lambda row: row.method or "-",
        "trained": lambda row: _share(row.trainable_parameters, row.parameters),
        "seconds": lambda row: _shown(row.seconds, "{:.0f}"),
        "peak memory": lambda row: _shown(row.peak_memory_bytes, "{:.2f} GB", 1e-9),
        "loss": lambda row: _shown(row.loss, "{:.3f}"),
        "served": lambda row: f"{row.bytes / 1e6:.1f} MB" if row.bytes >= 1e6 else f"{row.bytes / 1e3:.0f} kB",
    }
    for suite in sorted({suite for row in rows for suite in row.scores}):
        columns[suite] = lambda row, suite=suite: _score(row.scores.get(suite))  # type: ignore[misc]
    return list(columns), [[cell(row) for cell in columns.values()] for row in rows]


def _headline(result: Evaluation) -> Score:
    first = result.metrics[0]
    return Score(metric=first.name, value=first.value, stderr=first.stderr, n=first.n)


def _shown(value: float | None, form: str, scale: float = 1) -> str:
    return "-" if value is None else form.format(value * scale)


def _share(trained: int | None, parameters: int | None) -> str:
    if trained is None or not parameters:
        return _shown(trained, "{:,}")
    return f"{trained:,} ({trained / parameters:.2%})"


def _score(score: Score | None) -> str:
    if score is None or score.value is None:
        return "-"
    return f"{score.metric} {score.value:.3f}" + (f" ± {score.stderr:.3f}" if score.stderr is not None else "")
