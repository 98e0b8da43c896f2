"""What the platform can't do without is started again whenever it ends, later each time that it ends soon.

It says so each time. Nothing here knows what runs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tunegate.api.errors import TunegateError
from tunegate.promotion.snapshot import Event

STEADY_SECONDS = 60.0  # what has lasted so long ends for a reason of its own
LONGEST_SECONDS = 30.0
_LOOK_SECONDS = 0.3


@dataclass
class Backoff:
    """How long to wait before something that ends again and again is started again: 0, 1, 2, 4 seconds and so on."""

    times: int = 0

    def pause(self, lasted: float) -> float:
        """`lasted`: the seconds from its start to its end."""
        if lasted >= STEADY_SECONDS:
            self.times = 0
        self.times += 1
        return min(LONGEST_SECONDS, 2.0 ** (self.times - 2)) if self.times > 1 else 0.0


class Part(Protocol):
    """A program that keeps its place when it is started again."""

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""

    def restart(self) -> None:
        """Start it again; returns when it answers. Raises TunegateError."""


@dataclass
class Kept:
    """A part under its name."""

    name: str
    part: Part
    began: float = field(default_factory=time.monotonic)
    due: float | None = None
    backoff: Backoff = field(default_factory=Backoff)

    def look(self) -> Iterator[Event]:
        """Start it again if it has ended and its time has come, and say so."""
        code = self.part.exit_code
        if code is None:
            return
        now = time.monotonic()
        if self.due is None:
            pause = self.backoff.pause(now - self.began)
            self.due = now + pause
            yield Event("", "Ended", f"{self.name} ended with status {code}; it is started again {when(pause)}.")
        if now < self.due:
            return
        self.began, self.due = time.monotonic(), None
        try:
            self.part.restart()
        except TunegateError as error:
            pause = self.backoff.pause(0)
            self.due = time.monotonic() + pause
            yield Event("", "NotStarted", f"{self.name} did not start: {error} It is tried again {when(pause)}.")
        else:
            yield Event("", "StartedAgain", f"{self.name} answers again.")


def when(pause: float) -> str:
    return f"in {pause:.0f} s" if pause else "at once"


def keep(parts: Sequence[Kept], stop: threading.Event, report: Callable[[Event], None]) -> None:
    """Look after all parts until `stop` is set."""
    while not stop.wait(_LOOK_SECONDS):
        for kept in parts:
            for event in kept.look():
                report(event)
