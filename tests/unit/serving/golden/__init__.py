"""Transcripts: what a client sends, what the engine says to it, and what the client gets, as on the wire.

Ids read ID, times 1, and seconds 0. They are from the SDKs themselves and from captures of public services; those of
what only tunegate has are its own. An engine that is asked again says more after a line of `----- again`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Transcript:
    path: str
    headers: list[tuple[bytes, bytes]]
    body: bytes
    engine: bytes
    status: int
    answer: bytes


def transcript(name: str) -> Transcript:
    """The transcript in NAME.txt."""
    text = (FOLDER / f"{name}.txt").read_text().removeprefix("===== request\n")
    request, _, rest = text.partition("\n===== engine\n")
    engine, _, rest = rest.partition("===== answer ")
    status, _, answer = rest.partition("\n")
    head, _, body = request.partition("\n\n")
    first, *lines = head.splitlines()
    headers = [(name.encode(), value.encode()) for name, _, value in (line.partition(": ") for line in lines)]
    whole = answer.removesuffix("\n") if answer.startswith("{") else answer
    json.loads(body)
    return Transcript(first.split()[1], headers, body.encode(), engine.encode(), int(status), whole.encode())


def names(folder: str = ".") -> list[str]:
    """All transcripts of a folder: of weights alone, or of a release with `parts` and of one with `tools`."""
    return sorted(str(path.relative_to(FOLDER).with_suffix("")) for path in (FOLDER / folder).glob("*.txt"))
