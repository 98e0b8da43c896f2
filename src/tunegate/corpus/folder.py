"""The folder of a corpus: the data, what was not taken, what waits for people, and the card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from tunegate.api.codec import from_json
from tunegate.api.digest import Digest
from tunegate.api.errors import UsageError
from tunegate.corpus.build import Corpus
from tunegate.corpus.card import card
from tunegate.corpus.plan import Plan
from tunegate.corpus.records import Rejected
from tunegate.store.folders import Folder

DATA = "data/train.jsonl"
_QUEUE = "queue.jsonl"


def write(folder: Folder, plan: Plan, corpus: Corpus, teacher: str) -> None:
    """Each file whole, in place of an older one. Raises UsageError or StoreError where it can't be written."""
    body = lines(corpus.records)
    digests = {"plan": str(Digest.of_bytes(msgspec.json.encode(plan))), "data": str(Digest.of_bytes(body))}
    folder.put(DATA, body)
    folder.put(_QUEUE, lines(corpus.queue))
    folder.put("rejected.jsonl", lines(corpus.rejected))
    folder.put("README.md", card(plan, corpus, teacher, digests).encode())


def read_queue(name: str, folder: Folder) -> list[Rejected]:
    """What waits for people. Raises UsageError where there is no corpus."""
    body = folder.get(_QUEUE)
    if body is None:
        raise UsageError(f"{name} holds no corpus; make one with: tunegate corpus build PLAN {name} --url URL")
    return [from_json(line, Rejected, f"{name}/{_QUEUE}") for line in body.splitlines()]


def lines(rows: Sequence[Any]) -> bytes:
    """Values as lines of JSON."""
    return b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
