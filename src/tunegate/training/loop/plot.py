"""The picture of a run: how its loss fell, and the learning rate it fell with.

Drawn from what the Trainer keeps of its log, which a resumed run has whole, wherever it resumes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

_SMOOTHED_FROM = 20  # points; below, the line itself is as easy to read
_MEMORY = 0.8


def draw(history: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the Trainer's `log_history` as a PNG. The same history gives the same bytes."""
    figure = Figure(figsize=(8, 4.5), dpi=100, layout="constrained")  # no pyplot: nothing is kept between calls
    axes = figure.subplots()
    steps, losses = _series(history, "loss")
    if len(steps) < _SMOOTHED_FROM:
        axes.plot(steps, losses, color="tab:blue", marker="o", label="loss")
    else:
        axes.plot(steps, losses, color="tab:blue", alpha=0.3, label="loss")
        axes.plot(steps, smoothed(losses), color="tab:blue", label="loss, smoothed")
    if any("eval_loss" in entry for entry in history):
        axes.plot(*_series(history, "eval_loss"), color="tab:orange", marker="o", label="validation loss")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.set_ylim(0, 1.05 * max(losses, default=1.0))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.2)
    rates = axes.twinx()
    rates.plot(*_series(history, "learning_rate"), color="tab:gray", linestyle=":", label="learning rate")
    rates.set_ylabel("learning rate")
    rates.set_ylim(bottom=0)
    rates.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    figure.legend(loc="outside upper right", ncols=4, frameon=False)
    figure.savefig(path, metadata={"Software": None})


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
