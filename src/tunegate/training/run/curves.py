"""What a person looks at of runs: their curves over one another, and what became of their rows. One page, no script.

Nothing on it says where on a machine a run lies.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment

from tunegate.api.codec import from_json
from tunegate.api.errors import UsageError
from tunegate.store import Store
from tunegate.training.data.examples import Account
from tunegate.training.run.curve import Point, read_curve
from tunegate.training.run.layout import ACCOUNT, RECORD
from tunegate.training.run.progress import Progress, read_log
from tunegate.training.run.stored_log import kept

PAGE = "curves.html"
_MOST_POINTS = 600
_PANELS = (
    ("loss", "Loss"),
    ("eval_loss", "Validation loss"),
    ("lr", "Learning rate"),
    ("grad_norm", "Gradient norm"),
    ("tokens_per_second", "Tokens/s"),
    ("rewards_accuracies", "Pairs whose chosen answer is rewarded more"),
    ("eval_rewards_accuracies", "The same of the validation split"),
    ("rewards_margins", "Margin between the rewards"),
    ("rewards_chosen", "Reward of chosen answers"),
    ("rewards_rejected", "Reward of rejected answers"),
)
# Where the trainer's own log calls it otherwise.
_IN_HISTORY = {"lr": "learning_rate"} | {
    name: name.replace("rewards_", "rewards/") for name, _ in _PANELS if "rewards_" in name
}
Series = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Peak:
    """Bytes of a run's first process at its peak. planned: None where nobody could tell. is_gpu: those of its GPU, else
    of the machine's memory, beyond what Python and its libraries take."""

    planned: int | None
    measured: int
    is_gpu: bool

    @classmethod
    def of(cls, log: Sequence[Progress]) -> Peak | None:
        """None for a run of an earlier tunegate."""
        is_gpu = any(step.gpu_memory_bytes is not None for step in log)
        measured = [step.gpu_memory_bytes if is_gpu else step.process_memory_bytes for step in log]
        planned = [step.planned_memory_bytes for step in log if step.planned_memory_bytes is not None]
        known = [size for size in measured if size is not None]
        return cls(planned[-1] if planned else None, max(known), is_gpu) if known else None


@dataclass(frozen=True)
class Run:
    """One run by the name it is shown under. `curves`: steps and values by measure; `points`: scores in the store."""

    name: str
    curves: dict[str, Series]
    account: Account | None = None
    points: tuple[Point, ...] = ()
    peak: Peak | None = None

    def last(self, measure: str) -> float | None:
        return self.curves[measure][-1][1] if self.curves[measure] else None


@dataclass(frozen=True)
class Line:
    """A run's curve in a panel whose corners are 0, 0 and 100, 100."""

    place: int
    path: str


@dataclass(frozen=True)
class Panel:
    title: str
    lines: tuple[Line, ...]
    first: int
    last: int
    lowest: float
    highest: float


def read_run(folder: Path) -> Run:
    """The run in a folder. Raises UsageError where none is."""
    if not (folder / RECORD).is_file():
        raise UsageError(f"{folder} is no run's folder; give an --output_dir of `tunegate train`, or MODEL/RUN.")
    path = folder / ACCOUNT
    account = from_json(path.read_bytes(), Account, str(path)) if path.is_file() else None
    log = read_log(folder)
    return Run(folder.resolve().name, _curves(_plain(log), "current_steps"), account, peak=Peak.of(log))


def read_stored(store: Store, model: str, run: str) -> Run:
    """A run as the store has it; raises what `read_curve` raises."""
    history, points = read_curve(store, model, run)
    log, account = kept(store, model, run)
    if log:
        return Run(f"{model}/{run}", _curves(_plain(log), "current_steps"), account, tuple(points), Peak.of(log))
    renamed = [{**entry, **{ours: entry.get(name) for ours, name in _IN_HISTORY.items()}} for entry in history]
    return Run(f"{model}/{run}", _curves(renamed, "step"), points=tuple(points))


def render(runs: Sequence[Run]) -> str:
    """The page. The same runs give the same bytes."""
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "number": _number,
        "gib": lambda size: "–" if size is None else f"{size / 2**30:.3g}",
        "name": lambda name: name.rstrip("/").rpartition("/")[2],
    }
    template = (files(__package__) / "curves.html.jinja").read_text("utf-8")
    panels = [_panel(title, [run.curves[measure] for run in runs]) for measure, title in _PANELS]
    suites = dict.fromkeys((point.suite, point.metric) for run in runs for point in run.points)
    for suite, metric in suites:
        scores = [tuple((p.step, p.value) for p in run.points if p.suite == suite) for run in runs]
        panels.append(_panel(f"{suite} {metric}", scores))
    return environment.from_string(template).render(runs=runs, panels=[panel for panel in panels if panel])


def _plain(log: Iterable[Progress]) -> list[dict[str, Any]]:
    return [{name: getattr(step, name) for name in step.__struct_fields__} for step in log]


def _curves(entries: Iterable[dict[str, Any]], step: str) -> dict[str, Series]:
    found = list(entries)
    return {
        measure: tuple((entry[step], entry[measure]) for entry in found if entry.get(measure) is not None)
        for measure, _ in _PANELS
    }


def _panel(title: str, curves: Sequence[Series]) -> Panel | None:
    """None where no run has a value."""
    seen = [[(step, value) for step, value in curve if math.isfinite(value)] for curve in curves]
    every = [point for curve in seen for point in curve]
    if not every:
        return None
    first, last = min(step for step, _ in every), max(step for step, _ in every)
    lowest, highest = min(value for _, value in every), max(value for _, value in every)
    width, height = last - first, highest - lowest

    def path(curve: list[tuple[int, float]]) -> str:
        some = [curve[index] for index in range(0, len(curve), 1 + len(curve) // _MOST_POINTS)]
        kept = some if some[-1:] == curve[-1:] else [*some, curve[-1]]
        places = [
            f"{100 * (step - first) / width if width else 50:.2f} "
            f"{100 - 100 * (value - lowest) / height if height else 50:.2f}"
            for step, value in kept
        ]
        return "M" + "L".join(places) + ("h0.01" if len(places) == 1 else "")

    lines = tuple(Line(place, path(curve)) for place, curve in enumerate(seen) if curve)
    return Panel(title, lines, first, last, lowest, highest)


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
