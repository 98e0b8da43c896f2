"""`tunegate models compare`: what versions cost to train and what they are worth, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from tunegate.api.codec import to_json
from tunegate.api.errors import UsageError
from tunegate.cli.options import json_option, open_store, print_table, store_options

if TYPE_CHECKING:
    from tunegate.evaluation.comparison import Compared, Score
    from tunegate.evaluation.paired import Paired


@click.command(short_help="Compare versions by cost, size and scores.")
@click.argument("versions", nargs=-1, required=True, metavar="VERSION VERSION...")
@click.option("--items", is_flag=True, help="Two versions question by question: what changed, and is it chance?")
@click.option("--markdown", is_flag=True, help="Print a Markdown table, for a report.")
@store_options
@json_option
def command(
    versions: tuple[str, ...], items: bool, markdown: bool, store_uri: str, endpoint_url: str | None, as_json: bool
) -> None:
    """Compare VERSIONs: trained parameters, time, memory, loss, size, and the score of every suite they were asked.

    Nothing is measured here: training leaves its figures in the manifest, `tunegate evaluate` the scores in the store.
    """
    from tunegate.evaluation.comparison import compare, compare_by_item

    if items:
        if len(versions) != 2 or markdown:
            raise UsageError("--items compares two versions, the second against the first, without --markdown.")
        found = compare_by_item(open_store(store_uri, endpoint_url), *versions)
        if not found:
            raise UsageError("No suite asked both versions the same questions; run `tunegate evaluate` for both.")
        click.echo(to_json(found) if as_json else "\n".join(map(changes, found)), nl=not as_json)
        return
    rows, asked_differently = compare(open_store(store_uri, endpoint_url), versions)
    for suite in sorted(asked_differently):
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


def table(rows: Sequence[Compared]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells; a figure that is not known is a dash."""

    def trained(row: Compared) -> str:
        if row.trainable_parameters is None or not row.parameters:
            return _shown(row.trainable_parameters, "{:,}")
        return f"{row.trainable_parameters:,} ({row.trainable_parameters / row.parameters:.2%})"

    columns: dict[str, Callable[[Compared], str]] = {
        "version": lambda row: row.version,
        "method": lambda row: row.method or "-",
        "trained": trained,
        "seconds": lambda row: _shown(row.seconds, "{:.0f}"),
        "peak memory": lambda row: _shown(row.peak_memory_bytes, "{:.2f} GB", 1e-9),
        "loss": lambda row: _shown(row.loss, "{:.3f}"),
        "served": lambda row: _size(row.bytes) + (f" on {_size(row.base_bytes)}" if row.base_bytes else ""),
    }
    for suite in sorted({suite for row in rows for suite in row.scores}):
        columns[suite] = lambda row, suite=suite: _score(row.scores.get(suite))  # type: ignore[misc]
    return list(columns), [[cell(row) for cell in columns.values()] for row in rows]


def changes(paired: Paired) -> str:
    """One suite in words, then every question whose answer changed, losses first."""
    told = f"{paired.suite}: {paired.gained} gained, {paired.lost} lost of {paired.n} ({paired.difference:+.1%})"
    chance = f"; p = {paired.p:.2g} (exact McNemar)"
    more = f", about {paired.more} more questions would show it" if paired.more else ""
    lines = [told + chance + more if paired.flips else f"{paired.suite}: no answer of {paired.n} changed sides"]
    for flip in paired.flips:
        lines.append(f"  {'+' if flip.is_gain else '-'} {flip.id}  {_line(flip.prompt)}")
        lines.append(f"      before: {_line(flip.before)}")
        lines.append(f"      after:  {_line(flip.after)}")
    return "\n".join(lines)


def _line(text: str, width: int = 100) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else f"{line[: width - 3]}..."


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


def _shown(value: float | None, form: str, scale: float = 1) -> str:
    return "-" if value is None else form.format(value * scale)


def _score(score: Score | None) -> str:
    if score is None or score.value is None:
        return "-"
    return f"{score.metric} {score.value:.3f}" + (f" ± {score.stderr:.3f}" if score.stderr is not None else "")
