"""Waiting for a store that is away, so that minutes without it cost nobody an attempt."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from tunegate.api.errors import UnavailableError

_LOG = logging.getLogger(__name__)
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0  # seconds

T = TypeVar("T")


def patiently(seconds: float, attempt: Callable[[], T]) -> T:
    """What `attempt` returns. While the store is away it is made again, after longer and longer pauses, for up to so
    many seconds; the log says so each time.

    Raises UnavailableError, which says how long it was waited for, and at once whatever else `attempt` raises.
    """
    deadline, pause = None, _SHORTEST_PAUSE
    while True:
        try:
            return attempt()
        except UnavailableError as error:
            now = time.monotonic()
            deadline = now + seconds if deadline is None else deadline
            if now >= deadline:
                waited = f" It was waited for {seconds:.0f} s." if seconds else ""
                raise UnavailableError(f"{error}{waited}") from error
            _LOG.warning("waiting for the store for up to %.0f s more: %s", deadline - now, error)
            time.sleep(min(pause, deadline - now))
        pause = min(2 * pause, _LONGEST_PAUSE)
