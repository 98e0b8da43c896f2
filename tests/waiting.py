"""Waiting for something to come true.

Deadlines are there to tell what hangs, not what is slow: a machine may stand still for a while, and programs that
import torch take half a minute to start on a busy one. What passes does not wait for them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


def wait_for(condition: Callable[[], object], *, seconds: float = 120, what: str = "it") -> None:
    """Return when `condition` is true; fail when it isn't after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.02)


async def wait_for_async(condition: Callable[[], object], *, seconds: float = 120, what: str = "it") -> None:
    """The same while other tasks of the event loop go on."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        await asyncio.sleep(0.01)
