"""An experience review as one HTML page: no script, no other file."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import Environment

from tunegate.api.digest import short
from tunegate.experience.contents import Experience, Group, Kind, Share
from tunegate.feedback.interactions import question_of, text_of

_TEXT = 600  # characters of a question or answer
_ROWS = 30  # groups of a kind
_KINDS: dict[Kind, str] = {
    "topic": "By what was asked",
    "prompt": "By prompt template",
    "source": "By source that the answer had",
    "tool": "By tool that the answer used",
    "version": "By version",
}


def render(experience: Experience) -> str:
    """The page. The same review gives the same bytes."""
    environment = Environment(autoescape=True)
    environment.filters |= {
        "cut": lambda text: text if len(text) <= _TEXT else f"{text[: _TEXT - 1]}…",
        "change": _change,
        "percent": lambda value: f"{100 * value:.1f} %",
        "place": lambda value: f"{100 * value:.1f}%",
        "question": question_of,
        "share": _share,
        "short": short,
        "text": text_of,
    }
    style = (files("tunegate.report") / "page.css").read_text("utf-8")
    return environment.from_string((files(__package__) / "page.html.j2").read_text("utf-8")).render(
        experience=experience, style=style, kinds=_KINDS, most=_ROWS, summary=summary(experience)
    )


def summary(experience: Experience) -> list[str]:
    """What it comes to, in a few lines."""
    whole = next((group for group in experience.of("all")), None)
    if whole is None or whole.share is None:
        return []
    share, period = whole.share, experience.period
    lines = [
        f"{period.since} to {period.until}: {whole.answers:,} answers, {share.judged:,} judged, "
        f"{share.down:,} disliked ({_share(share)})."
    ]
    if whole.before:
        lines.append(f"In the same time before: {_share(whole.before)}, so {_change(whole) or 'no change to tell'}.")
    for group in experience.groups:
        if group.kind not in ("all", "version") and group.is_worse and group.share and group.before:
            lines.append(f"Worse: {group.kind} {group.name}, {_share(group.before)} before, {_share(group.share)} now.")
    return lines


def _share(share: Share | None) -> str:
    if share is None:
        return "–"
    return f"{100 * share.value:.1f} %, {100 * share.low:.1f} to {100 * share.high:.1f}"


def _change(group: Group) -> str:
    return "more disliked than before" if group.is_worse else "less disliked than before" if group.is_better else ""
