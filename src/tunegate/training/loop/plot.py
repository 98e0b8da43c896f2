"""The picture of a run: how its loss fell, the learning rate it fell with, and what checkpoints were measured at.

Drawn from what the Trainer keeps of its log, which a resumed run has whole, wherever it resumes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tunegate.training.run.curve import Point

_SMOOTHED_FROM = 20  # points; below, the line itself is as easy to read
_MEMORY = 0.8


def draw(history: Sequence[dict[str, Any]], path: Path, points: Sequence[Point] = ()) -> None:
    """Draw the Trainer's `log_history` as a PNG, and below it `points`, sorted by suite, at the same steps.

    The same history and points give the same bytes.
    """
    # no pyplot: nothing is kept between calls
    figure = Figure(figsize=(8, 7.5 if points else 4.5), dpi=100, layout="constrained")
    if points:
        axes, below = figure.subplots(2, sharex=True, height_ratios=(3, 2))
        _draw_points(below, points)
        below.set_xlabel("step")
    else:
        axes = figure.subplots()
        axes.set_xlabel("step")
    steps, losses = _series(history, "loss")
    if len(steps) < _SMOOTHED_FROM:
        axes.plot(steps, losses, color="tab:blue", marker="o", label="loss")
    else:
        axes.plot(steps, losses, color="tab:blue", alpha=0.3, label="loss")
        axes.plot(steps, smoothed(losses), color="tab:blue", label="loss, smoothed")
    if any("eval_loss" in entry for entry in history):
        axes.plot(*_series(history, "eval_loss"), color="tab:orange", marker="o", label="validation loss")
    axes.set_ylabel("loss")
    axes.set_ylim(0, 1.05 * max(losses, default=1.0))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.2)
    rates = axes.twinx()
    rates.plot(*_series(history, "learning_rate"), color="tab:gray", linestyle=":", label="learning rate")
    rates.set_ylabel("learning rate")
    rates.set_ylim(bottom=0)
    rates.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    lines = [*axes.get_lines(), *rates.get_lines()]
    figure.legend(handles=lines, loc="outside upper right", ncols=4, frameon=False)
    figure.savefig(path, metadata={"Software": None})


def _draw_points(axes: Axes, points: Sequence[Point]) -> None:
    """One line for each suite, with the 95 % intervals as bars."""
    for place, (suite, found) in enumerate(groupby(points, key=lambda point: point.suite)):
        measured = list(found)
        values = [point.value for point in measured]
        lows = [point.value - (point.value if point.low is None else point.low) for point in measured]
        highs = [(point.value if point.high is None else point.high) - point.value for point in measured]
        style: dict[str, Any] = {"color": f"C{place + 2}", "marker": "o", "capsize": 3}
        errors = [[max(0.0, low) for low in lows], [max(0.0, high) for high in highs]]
        label = f"{suite} {measured[-1].metric}"
        axes.errorbar([point.step for point in measured], values, yerr=errors, label=label, **style)
    axes.set_ylabel("measured, with 95 % intervals")
    axes.grid(alpha=0.2)
    axes.legend(frameon=False, fontsize="small")


def smoothed(values: Sequence[float], memory: float = _MEMORY) -> list[float]:
    """An exponential moving average that does not lean towards 0 at its beginning."""
    average, weight, smooth = 0.0, 0.0, []
    for value in values:
        average = memory * average + (1 - memory) * value
        weight = memory * weight + (1 - memory)
        smooth.append(average / weight)
    return smooth


def _series(history: Sequence[dict[str, Any]], key: str) -> tuple[list[int], list[float]]:
    points = [(entry["step"], entry[key]) for entry in history if key in entry]
    return [step for step, _ in points], [value for _, value in points]
