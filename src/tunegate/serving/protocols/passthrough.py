"""The engine's event stream under our id and name, without reading each chunk as JSON.

The first event says how the engine spells its id and model; from then on those exact bytes are replaced. Inside a JSON
string every quote is escaped, so text that a model writes can never look like them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

_DONE = re.compile(rb"^data:\s*\[DONE\]", re.MULTILINE)
_ERROR = re.compile(rb'^data:\s*\{\s*"error"', re.MULTILINE)
_TEXT = re.compile(rb'"(?:(?:reasoning_)?content|text)"\s*:\s*"[^"]|"tool_calls"\s*:\s*\[')
_FIELD = rb'("%s"\s*:\s*)("(?:[^"\\]|\\.)*")'


class Rewriter:
    """Feed it bytes as they come; it gives back whole lines.

    pieces: how many pieces of text have come; failed: whether the engine reported an error within the stream, whose
    words are left out with all that follows them; done: whether it said [DONE]. Those last lines are kept for `end`,
    when the engine's connection is free for the next request.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        self.pieces = 0
        self.failed = False
        self._names = names
        self._replace: list[tuple[bytes, bytes]] | None = None
        self._tail = b""
        self.done = False
        self._last = b""

    def feed(self, data: bytes) -> bytes:
        if self._tail:
            data = self._tail + data
        cut = data.rfind(b"\n") + 1
        lines, self._tail = data[:cut], data[cut:]
        if self._replace is None:
            self._replace = self._replacements(lines)
        for old, new in self._replace or ():
            lines = lines.replace(old, new)
        self.pieces += len(_TEXT.findall(lines))
        if error := _ERROR.search(lines):
            self.failed = True
            return lines[: error.start()]
        self.done = self.done or _DONE.search(lines) is not None
        if self.done:
            self._last += lines
            return b""
        return lines

    def end(self) -> bytes:
        """What is left at the end of the engine's stream. Not every engine says [DONE], but clients wait for it."""
        last = self.feed(b"\n") if self._tail else b""
        if self.failed:
            return last
        return self._last if self.done else last + b"data: [DONE]\n\n"

    def _replacements(self, lines: bytes) -> list[tuple[bytes, bytes]] | None:
        """What to replace by what, once the first chunk has come."""
        for line in lines.splitlines():
            if line.startswith(b"data:") and b'"choices"' in line:
                chunk = msgspec.json.decode(line[5:], type=dict[str, msgspec.Raw])
                replacements = []
                for name, ours in self._names.items():
                    fields = re.finditer(_FIELD % name.encode(), line)
                    if own := next((field for field in fields if field[2] == bytes(chunk.get(name, b""))), None):
                        replacements.append((own[0], own[1] + msgspec.json.encode(ours)))
                return replacements
        return None
