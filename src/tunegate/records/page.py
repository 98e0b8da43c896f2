"""The page that says why a model is live, or isn't: one file that needs nothing else, not even a script."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from datetime import datetime
from importlib.resources import files

import jinja2
import matplotlib as mpl
from matplotlib.figure import Figure

from tunegate.api.digest import short
from tunegate.api.records import Decision, Departure, StepEvidence

_INK = "#010203"  # becomes the color of the page's text, light or dark
_WORSE, _NOT_WORSE = "#c2410c", "#0f766e"


def render(
    decision: Decision,
    departure: Departure | None = None,
    signed_by: str = "",
) -> str:
    """The HTML of a record. signed_by: the id of its key; empty for a promotion that is not recorded yet."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(short=short, number=_number, time=_time)
    template = environment.from_string(files("tunegate.records").joinpath("page.html.jinja").read_text())
    return template.render(
        decision=decision,
        promotion=decision.promotion,
        status=decision.promotion.status,
        producer=decision.producer,
        departure=departure,
        signed_by=signed_by,
        plot=draw(decision.evidence, 1 / decision.guard.alpha),
    )


def draw(evidence: Sequence[StepEvidence], bound: float) -> str:
    """The evidence after each step against the bound that decides, as SVG; empty where nobody judged an answer.

    It begins with 1, which says nothing, and is drawn over the judged answers of the candidate.
    """
    if not evidence:
        return ""
    judged = [0]
    for step in evidence:
        judged.append(judged[-1] + step.candidate.n)
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "tunegate", "text.color": _INK, "font.size": 11}):
        figure = Figure(figsize=(7, 3.6), layout="constrained", facecolor="none")
        axes = figure.subplots()
        axes.set_facecolor("none")
        axes.plot(judged, [1, *(step.worse for step in evidence)], color=_WORSE, marker="o", label="worse")
        axes.plot(judged, [1, *(step.not_worse for step in evidence)], color=_NOT_WORSE, marker="s", label="not worse")
        axes.axhline(bound, color=_INK, linestyle="--", linewidth=1)
        axes.annotate(f"decides at {bound:.3g}", (0, bound), xytext=(4, 4), textcoords="offset points", color=_INK)
        axes.set_yscale("log")
        values = [1, bound, *(step.worse for step in evidence), *(step.not_worse for step in evidence)]
        axes.set_ylim(max(min(values), 1e-6) / 3, min(max(values), 1e12) * 4)
        for step, start, end in zip(evidence, judged, judged[1:], strict=False):
            axes.axvline(end, color=_INK, alpha=0.15)
            if end > start:
                axes.text((start + end) / 2, axes.get_ylim()[0], f"{step.weight} %", ha="center", va="bottom")
        axes.set_xlabel("judged answers of the candidate, by step", color=_INK)
        axes.set_ylabel("evidence", color=_INK)
        axes.tick_params(colors=_INK)
        for spine in axes.spines.values():
            spine.set_color(_INK)
            spine.set_alpha(0.3)
        axes.legend(loc="upper left", bbox_to_anchor=(0, 1.16), ncols=2, frameon=False, labelcolor=_INK)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :].replace(_INK, "currentColor")


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if math.isfinite(value) and abs(value) < 1e15 else "very large"


def _time(value: datetime | None) -> str:
    return f"{value:%Y-%m-%d %H:%M:%S} UTC" if value else "–"
