"""Numbers in brackets that cite what was found: checked while an answer streams, and dropped where they cite nothing.

A source's number is its place in the final order, the one that the model was shown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

_MARK = re.compile(r"[ \u00a0]?[\[［【]\s*(\d{1,3}(?:\s*[,，、]\s*\d{1,3})*)\s*[\]］】]")
# What may become one: held back until it is decided.
_BEGUN = re.compile(r"[ \u00a0]?(?:[\[［【]\s*(?:\d{1,3}(?:\s*[,，、]\s*\d{0,3})*)?\s*)?\Z")
_LONGEST = 64  # characters; what is open for longer is no citation


@dataclass(frozen=True)
class Citation:
    """A number that stays, and where it stands in the answer, in characters."""

    number: int
    start: int
    end: int


@dataclass(frozen=True)
class Citing:
    """How far an answer is checked. sources: how many there are; dropped: the numbers that cite none of them."""

    sources: int
    held: str = ""
    length: int = 0
    citations: tuple[Citation, ...] = ()
    dropped: tuple[int, ...] = ()

    @property
    def cited(self) -> tuple[int, ...]:
        """The sources that are cited, each once, in their order. None of them: the answer is not from the sources."""
        return tuple(sorted({citation.number for citation in self.citations}))


def feed(state: Citing, piece: str) -> tuple[Citing, str]:
    """What of the answer may be shown after one more piece of it."""
    text = state.held + piece
    begun = _BEGUN.search(text)
    held = begun[0] if begun and len(begun[0]) <= _LONGEST else ""
    checked, shown = _checked(state, text[: len(text) - len(held)])
    return replace(checked, held=held), shown


def finish(state: Citing) -> tuple[Citing, str]:
    """What was held back, when the answer is at its end."""
    return _checked(replace(state, held=""), state.held)


def _checked(state: Citing, text: str) -> tuple[Citing, str]:
    shown, at = "", 0
    citations, dropped = list(state.citations), list(state.dropped)
    for mark in _MARK.finditer(text):
        shown += text[at : mark.start()]
        at = mark.end()
        numbers = [int(number) for number in re.findall(r"\d+", mark[1])]
        known = [number for number in numbers if 1 <= number <= state.sources]
        dropped += [number for number in numbers if number not in known]
        shown += mark[0][: mark[0].index(mark[0].strip()[0])] if known else ""
        for number in known:
            start = state.length + len(shown)
            shown += f"[{number}]"
            citations.append(Citation(number, start, state.length + len(shown)))
    shown += text[at:]
    done = replace(state, length=state.length + len(shown), citations=tuple(citations), dropped=tuple(dropped))
    return done, shown
