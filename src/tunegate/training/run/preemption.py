"""How a run that is asked to stop (SIGTERM, as nodes are drained) still ends with a complete checkpoint.

The first signal is a request, followed at the end of a step; before training, and at the second signal, the process
ends at once.
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
class StopRequest:
    """is_training: steps are being done, and the request is followed after the one at hand."""

    requested: bool = False
    is_training: bool = False


@contextmanager
def stoppable() -> Iterator[StopRequest]:
    """Handle SIGTERM, which only a main thread can. Raises Preempted where no step's end will follow the request."""
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def on_sigterm(_signal: int, _frame: FrameType | None) -> None:
        if stop.requested or not stop.is_training:
            raise Preempted("The run was asked to stop; the same command resumes from the newest complete checkpoint.")
        stop.requested = True

    before = signal.signal(signal.SIGTERM, on_sigterm)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)
