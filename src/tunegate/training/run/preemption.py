"""How a run that is asked to stop (SIGTERM, as nodes are drained) gets to say goodbye with a complete checkpoint.

The first signal is a wish, fulfilled at the end of a step; before training, and at the second signal, it is an order.
Knows no torch.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from tunegate.api.errors import Preempted


@dataclass
class Stop:
    """asked: somebody wants the run to stop. waits: training goes on, and will see to it."""

    asked: bool = False
    waits: bool = False


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Hear SIGTERM, which only a main thread can. Raises Preempted where nobody would see to the wish."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def hear(_signal: int, _frame: FrameType | None) -> None:
        if stop.asked or not stop.waits:
            raise Preempted("The run was asked to stop; the same command goes on from the newest complete checkpoint.")
        stop.asked = True

    before = signal.signal(signal.SIGTERM, hear)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)
