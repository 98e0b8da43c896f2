"""Stop strings over the pieces of an answer, for an engine that has none of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunegate.serving.events import bad_request

MOST = 16
LONGEST = 256  # characters


def read_stops(request: Mapping[str, Any]) -> tuple[str, ...]:
    """What `stop` of a request says, one text or several. Raises ApiError 400."""
    value = request.get("stop") or []
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) and 0 < len(stop) <= LONGEST for stop in stops):
        raise bad_request(f"stop must be a text of 1 to {LONGEST} characters, or a list of such texts.", "stop")
    if len(stops) > MOST:
        raise bad_request(f"stop may have at most {MOST} texts.", "stop")
    return tuple(stops)


class StopScanner:
    """Fed with an answer in pieces, gives back what comes before the first stop string. `stopped`: it has come.

    The end of what came is held back as long as it may be the beginning of a stop string.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self.stopped = False
        self._stops = stops
        self._held = ""

    def feed(self, text: str) -> str:
        text = self._held + text
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        beginnings = (stop[:length] for stop in self._stops for length in range(1, len(stop)))
        held = max((len(beginning) for beginning in beginnings if text.endswith(beginning)), default=0)
        cut = len(text) - held
        self._held = text[cut:]
        return text[:cut]

    def end(self) -> str:
        """What was held back: no stop string came of it."""
        held, self._held = self._held, ""
        return held
