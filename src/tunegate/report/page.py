"""The report as one HTML page: no script, no other file, less than 2 MB however long the answers are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.resources import files

from jinja2 import Environment

from tunegate.api.digest import short
from tunegate.api.evaluation import Metric
from tunegate.report.contents import Kind, Measured, Report, Row, Version

_TEXT = 300  # characters of a question or answer
_FLIPS = 300  # questions shown on the page, over all suites and versions
_LEAKS = 100
_SHAPES = (  # around 0, 0: a version is told by its shape, too, not by color alone
    "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0",
    "M-3.7,-3.7h7.4v7.4h-7.4z",
    "M0,-5.2l5.2,5.2l-5.2,5.2l-5.2,-5.2z",
    "M0,-5l5,8.6h-10z",
    "M0,5l5,-8.6h-10z",
    "M-1.5,-5h3v3.5h3.5v3h-3.5v3.5h-3v-3.5h-3.5v-3h3.5z",
)
_KINDS: dict[Kind, str] = {
    "headline": "Of the whole suite",
    "area": "By area",
    "subject": "By subject",
    "other": "Other",
}


def render(report: Report) -> str:
    """The page. The same report gives the same bytes."""
    environment = Environment(autoescape=True, trim_blocks=False)
    environment.filters |= {
        "at": _at,
        "cut": _cut,
        "interval": _interval,
        "is_share": _is_share,
        "items": _items,
        "number": lambda metric, kind: _number(metric.value, kind),
        "plain": lambda value: _number(value, "headline"),
        "short": short,
        "signed": _signed,
    }
    environment.tests["best"] = _is_best
    folder = files(__package__)
    pairs = sum(len(suite.flips) for suite in report.suites)
    leaks = sum(bool(leak.hits) for leak in report.leaks.found)
    return environment.from_string((folder / "page.html.j2").read_text("utf-8")).render(
        report=report,
        style=(folder / "page.css").read_text("utf-8"),
        places={version.letter: place for place, version in enumerate(report.versions)},
        shapes=_SHAPES,
        kinds=_KINDS,
        summary=summary(report),
        flips_shown=max(3, _FLIPS // max(1, pairs)),
        leaks_shown=max(3, _LEAKS // max(1, leaks)),
        costs=_COSTS,
        speeds=_SPEEDS,
    )


def summary(report: Report) -> list[str]:
    """What it all comes to, a line for each version after the first."""
    lines = []
    for version in report.versions[1:]:
        whole = [change for suite in report.suites for change in suite.changes if change.letter == version.letter]
        whole = [change for change in whole if not change.part]
        better = sum(change.is_shown and change.difference > 0 for change in whole)
        worse = sum(change.is_shown and change.difference < 0 for change in whole)
        alike = len(whole) - better - worse
        told = f"{version.letter} is better in {better}, worse in {worse} and not told apart in {alike} of the suites"
        compared = f"that could be compared with {report.versions[0].letter} ({len(whole)} of {len(report.suites)})"
        lines.append(f"{told} {compared}.")
    return lines


def _number(value: float | None, kind: Kind) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.1f} %" if kind != "other" and 0 <= value <= 1 else f"{value:.3f}"


def _interval(metric: Metric, kind: Kind) -> str:
    if metric.low is None or metric.high is None:
        return ""
    return f"{_number(metric.low, kind)} to {_number(metric.high, kind)}"


def _signed(difference: float) -> str:
    return f"{100 * difference:+.1f} points" if abs(difference) <= 1 else f"{difference:+.3f}"


def _items(row: Row) -> str:
    """Of how many items the numbers are, where that is the same for all versions."""
    counts = sorted({metric.n for metric in row.values if metric})
    return f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"


def _is_share(row: Row) -> bool:
    return _bounds(row) == (0.0, 1.0)


def _at(value: float, row: Row) -> str:
    """Where a value stands in the row's plot."""
    low, high = _bounds(row)
    return f"{100 * (value - low) / (high - low):.1f}%"


def _bounds(row: Row) -> tuple[float, float]:
    known = [value for m in row.values if m for value in (m.value, m.low, m.high) if value is not None]
    if all(0 <= value <= 1 for value in known):
        return 0.0, 1.0
    return min(known), max(known) if max(known) > min(known) else min(known) + 1


def _is_best(metric: Metric, lines: Sequence[Sequence[Metric | None]], column: int) -> bool:
    """Whether it is, where there is something to compare it with."""
    values = [m.value for line in lines if (m := line[column]) and m.value is not None]
    best = max(values) if metric.higher_is_better else min(values)
    return len(values) > 1 and metric.value == best


def _cut(text: str, length: int = _TEXT) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _known(form: Callable[[float], str]) -> Callable[[float | None], str]:
    return lambda value: "–" if value is None else form(value)


_count, _seconds = _known("{:,.0f}".format), _known("{:,.1f} s".format)
_gigabytes, _megabytes = _known(lambda value: f"{value / 1e9:.2f} GB"), _known(lambda value: f"{value / 1e6:.1f} MB")

_COSTS: dict[str, Callable[[Version], str]] = {
    "method": lambda version: version.method or "–",
    "trained parameters": lambda version: _count(version.trainable_parameters),
    "training": lambda version: _seconds(version.seconds),
    "peak memory": lambda version: _gigabytes(version.peak_memory_bytes),
    "loss": lambda version: _known("{:.3f}".format)(version.loss),
    "served": lambda version: _megabytes(version.bytes),
}


def _rate(count: int | None, seconds: float) -> float | None:
    return None if count is None or not seconds else count / seconds


_SPEEDS: dict[str, Callable[[Measured], str]] = {
    "computed as": lambda measured: measured.settings or "–",
    "questions": lambda measured: _count(measured.items),
    "without an answer": lambda measured: _count(measured.unanswered),
    "seconds": lambda measured: _seconds(measured.seconds),
    "tokens read": lambda measured: _count(measured.tokens_read),
    "tokens written": lambda measured: _count(measured.tokens_written),
    "read / s": lambda measured: _count(_rate(measured.tokens_read, measured.seconds)),
    "written / s": lambda measured: _count(_rate(measured.tokens_written, measured.seconds)),
}
