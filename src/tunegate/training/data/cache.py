"""The files that hold a data set's tokens: written row by row as the data set is read, and mapped into memory.

Beside the tokens lies the account of what became of every row. Knows nothing of mixtures and of runs.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tunegate.api.codec import Resource, from_json, to_json
from tunegate.files import new_folder
from tunegate.training.data.datasets import DataSet
from tunegate.training.data.formats import Message, dialogue_of
from tunegate.training.data.mixture import Rows
from tunegate.training.data.readers import read_records
from tunegate.training.data.tokenize import IGNORED, Encoded, Example, Ids, Limits, encode

_BATCH = 256  # dialogues encoded at once
_REPORT_SECONDS = 1.0
_IDS, _LABELS, _ENDS, _REJECTED, _ACCOUNT = "ids.bin", "labels.bin", "ends.bin", "rejected.jsonl", "account.json"


class Rejected(Resource, frozen=True, kw_only=True):
    """A row that can't be used; its line counts from 1."""

    file: str
    line: int
    reason: str


class DatasetAccount(Resource, frozen=True, kw_only=True):
    """What became of a data set's rows: `rows` are used, the others are rejected, by reason.

    `cut_dialogues` lost `cut_turns` answers and `cut_tokens` tokens to the limits.
    """

    name: str
    digest: str
    rows: int
    rejected: dict[str, int]
    tokens: int
    trained_tokens: int
    cut_dialogues: int
    cut_turns: int
    cut_tokens: int
    num_samples: int | None = None


class Preparing(Resource, frozen=True, kw_only=True):
    """How far a data set is tokenized: rows read, and the share of its bytes."""

    dataset: str
    rows: int
    rows_per_second: float
    share: float


Report = Callable[[Preparing], None]


@dataclass(frozen=True)
class Part:
    """One data set's folder, mapped into memory."""

    ids: Ids
    labels: Ids
    ends: Rows

    def example(self, row: int) -> Example:
        span = slice(self.ends[row - 1] if row else 0, self.ends[row])
        return Example(self.ids[span], self.labels[span])


def write_tokens(
    folder: Path, dataset: DataSet, tokenizer: Any, limits: Limits, max_samples: int | None, report: Report
) -> None:
    """Tokenize a data set into a folder beside `folder`, which takes its place when it is complete."""
    rows = _Reader(dataset, report)
    with new_folder(folder) as partial, ExitStack() as open_files:
        writer = _Writer(partial, open_files)
        while writer.rows != max_samples and (batch := list(islice(rows, _BATCH))):
            usable = [row.dialogue for row in batch if not isinstance(row.dialogue, ValueError)]
            encoded = encode(tokenizer, usable, limits)
            for row in batch:
                writer.add(row, row.dialogue if isinstance(row.dialogue, ValueError) else next(encoded))
                if writer.rows == max_samples:
                    break
        writer.finish(dataset)
    rows.tell(is_done=True)


@dataclass(frozen=True)
class _Row:
    file: str
    line: int
    dialogue: tuple[Message, ...] | ValueError


class _Reader(Iterator[_Row]):
    """The rows of a data set's files, telling now and then how far it is."""

    def __init__(self, dataset: DataSet, report: Report) -> None:
        self._dataset = dataset
        self._report = report
        self._size = dataset.size
        self._bytes = self._count = 0
        self._begun = self._told = time.monotonic()
        self._rows = self._read()

    def __next__(self) -> _Row:
        return next(self._rows)

    def _read(self) -> Iterator[_Row]:
        before = 0
        for path in self._dataset.files:
            with path.open("rb") as stream:
                for line, record in read_records(path, stream):
                    self._count += 1
                    yield _Row(path.name, line, self._dialogue(record))
                    self._bytes = before + stream.tell()
                    if time.monotonic() - self._told > _REPORT_SECONDS:
                        self.tell()
            before += path.stat().st_size

    def _dialogue(self, record: Any) -> tuple[Message, ...] | ValueError:
        try:
            return dialogue_of(record, self._dataset.layout)
        except ValueError as error:
            return error

    def tell(self, *, is_done: bool = False) -> None:
        self._told = time.monotonic()
        seconds = max(self._told - self._begun, 1e-9)
        share = 1.0 if is_done else self._bytes / self._size
        self._report(
            Preparing(dataset=self._dataset.name, rows=self._count, rows_per_second=self._count / seconds, share=share)
        )


class _Writer:
    """The files of a data set's folder while they grow, and its account."""

    def __init__(self, folder: Path, open_files: ExitStack) -> None:
        names = (_IDS, _LABELS, _ENDS, _REJECTED)
        self._folder = folder
        self._files = [open_files.enter_context((folder / name).open("wb")) for name in names]
        self._reasons: Counter[str] = Counter()
        self._end = self._trained = self._dialogues = self._turns = self._tokens = 0
        self.rows = 0

    def add(self, row: _Row, outcome: Encoded | ValueError) -> None:
        ids, labels, ends, rejected = self._files
        if isinstance(outcome, ValueError):
            reason = str(outcome)
            self._reasons[reason.split(":")[0]] += 1
            rejected.write(msgspec.json.encode(Rejected(file=row.file, line=row.line, reason=reason)) + b"\n")
            return
        example = outcome.example
        self.rows += 1
        self._end += len(example.input_ids)
        self._trained += int((np.asarray(example.labels) != IGNORED).sum())
        self._dialogues += outcome.cut_tokens > 0
        self._turns += outcome.cut_turns
        self._tokens += outcome.cut_tokens
        ids.write(np.asarray(example.input_ids, np.int32).tobytes())
        labels.write(np.asarray(example.labels, np.int32).tobytes())
        ends.write(self._end.to_bytes(8, sys.byteorder))

    def finish(self, dataset: DataSet) -> None:
        for file in self._files:
            file.flush()
            os.fsync(file.fileno())
        account = DatasetAccount(
            name=dataset.name,
            digest=dataset.digest,
            rows=self.rows,
            rejected=dict(self._reasons.most_common()),
            tokens=self._end,
            trained_tokens=self._trained,
            cut_dialogues=self._dialogues,
            cut_turns=self._turns,
            cut_tokens=self._tokens,
            num_samples=dataset.num_samples,
        )
        (self._folder / _ACCOUNT).write_bytes(to_json(account))


def read_account(folder: Path) -> DatasetAccount:
    return from_json((folder / _ACCOUNT).read_bytes(), DatasetAccount, str(folder / _ACCOUNT))


def is_whole(folder: Path) -> bool:
    if not (folder / _ACCOUNT).is_file():
        return False
    account = read_account(folder)
    sizes = {_IDS: 4 * account.tokens, _LABELS: 4 * account.tokens, _ENDS: 8 * account.rows}
    return all((folder / name).is_file() and (folder / name).stat().st_size == size for name, size in sizes.items())


def open_part(folder: Path, account: DatasetAccount) -> Part:
    def mapped(name: str, count: int, kind: Any) -> Any:
        return np.memmap(folder / name, kind, "r", shape=(count,))

    return Part(
        mapped(_IDS, account.tokens, np.int32),
        mapped(_LABELS, account.tokens, np.int32),
        mapped(_ENDS, account.rows, np.int64),
    )


def first_rejected(folder: Path) -> str:
    """A sentence on the first row that can't be used."""
    with (folder / _REJECTED).open("rb") as lines:
        first = from_json(next(lines), Rejected, str(folder / _REJECTED))
    return f"{first.file}:{first.line}: {first.reason}"


def collect_rejected(folders: Sequence[Path], into: Path) -> None:
    with into.open("wb") as whole:
        for folder in folders:
            with (folder / _REJECTED).open("rb") as part:
                shutil.copyfileobj(part, whole)
