"""The folder of a corpus: the data, what was not taken, what waits for people, and the card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from tunegate.api.codec import from_json
from tunegate.api.digest import Digest
from tunegate.api.errors import DataError, UsageError
from tunegate.corpus.build import Corpus
from tunegate.corpus.card import card
from tunegate.corpus.plan import Plan
from tunegate.corpus.records import Rejected
from tunegate.files import disk_errors_as, replace_file

REPLIES = "replies.jsonl"
_QUEUE = "queue.jsonl"


def write(folder: Path, plan: Plan, corpus: Corpus, teacher: str) -> None:
    """Each file whole, in place of an older one. Raises DataError where it can't be written."""
    body = lines(corpus.records)
    digests = {"plan": str(Digest.of_bytes(msgspec.json.encode(plan))), "data": str(Digest.of_bytes(body))}
    with disk_errors_as(DataError, folder, "name another folder."):
        replace_file(folder / "data/train.jsonl", body)
        replace_file(folder / _QUEUE, lines(corpus.queue))
        replace_file(folder / "rejected.jsonl", lines(corpus.rejected))
        replace_file(folder / "README.md", card(plan, corpus, teacher, digests).encode())


def read_queue(folder: Path) -> list[Rejected]:
    """What waits for people. Raises UsageError where there is no corpus."""
    path = folder / _QUEUE
    if not path.is_file():
        raise UsageError(f"{folder} holds no corpus; make one with: tunegate corpus build PLAN {folder} --url URL")
    return [from_json(line, Rejected, str(path)) for line in path.read_bytes().splitlines()]


def lines(rows: Sequence[Any]) -> bytes:
    """Values as lines of JSON."""
    return b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
