"""A tokenized data set in a folder: the ids of its examples, which of them are trained, and what became of its records.

Written example by example, so that memory does not grow with the corpus, and mapped into memory to be read.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from tunegate.api.codec import Resource, from_json, to_json
from tunegate.api.errors import DataError
from tunegate.training.data.datasets import DataSet
from tunegate.training.data.formats import unread_keys
from tunegate.training.data.readers import Reason, Record, RecordError
from tunegate.training.data.tokenize import IGNORED, Encoded, Example, Ids

_IDS, _TRAINED, _ENDS, _MIDDLES = "ids.bin", "trained.bin", "ends.bin", "middles.bin"
_REJECTED, _ACCOUNT = "rejected.jsonl", "account.json"


class Rejected(Resource, frozen=True, kw_only=True):
    """A record that became no example; its line counts from 1."""

    file: str
    line: int
    reason: Reason
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}"


class Rejects(Resource, frozen=True, kw_only=True):
    """How many records were rejected for one reason, and the first of them."""

    count: int
    first: Rejected


class DatasetAccount(Resource, frozen=True, kw_only=True):
    """What became of a data set's records: `examples`, or rejected, by reason.

    `cut_dialogues` lost `cut_turns` answers and `cut_tokens` tokens to the limits. `num_samples`: examples to draw.
    `unread`: keys that hold something which is not trained, each with the number of its records; `read_as`: layout and
    split, where they were recognized. `pairs`: whether an example is a pair, with the tokens of both its sides.
    """

    name: str
    digest: str
    examples: int
    rejected: dict[Reason, Rejects]
    tokens: int
    trained_tokens: int
    cut_dialogues: int
    cut_turns: int
    cut_tokens: int
    num_samples: int | None = None
    unread: dict[str, int] = {}
    read_as: str = ""
    pairs: bool = False

    @property
    def rejected_records(self) -> int:
        return sum(rejects.count for rejects in self.rejected.values())

    @property
    def first_rejected(self) -> Rejected:
        return next(iter(self.rejected.values())).first  # reasons are in the order of their first records


@dataclass(frozen=True)
class CachedDataset:
    """The folder of a data set, mapped into memory. Example N has the ids up to `ends[N]`; of a pair those up to
    `middles[N]` are the chosen side. There are none where examples are no pairs."""

    folder: Path
    account: DatasetAccount
    ids: Ids
    trained: npt.NDArray[np.bool_]
    ends: npt.NDArray[np.int64]
    middles: npt.NDArray[np.int64]

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each example; of a pair those of its longer side."""
        if not self.account.pairs:
            return np.diff(self.ends, prepend=0)
        starts = np.concatenate([np.zeros(1, np.int64), self.ends[:-1]])
        lengths: npt.NDArray[np.int64] = np.maximum(self.middles - starts, self.ends - self.middles)
        return lengths

    def example(self, index: int) -> Example:
        return self._between(self._start(index), self.ends[index])

    def pair(self, index: int) -> tuple[Example, Example]:
        """The chosen side and the rejected one."""
        middle = self.middles[index]
        return self._between(self._start(index), middle), self._between(middle, self.ends[index])

    def _start(self, index: int) -> np.int64:
        return self.ends[index - 1] if index else np.int64(0)

    def _between(self, start: np.int64, end: np.int64) -> Example:
        ids = self.ids[start:end]
        return Example(ids, np.where(self.trained[start:end], ids, np.int32(IGNORED)))


def write_dataset(
    folder: Path, dataset: DataSet, outcomes: Iterable[tuple[Record, Encoded | RecordError]], max_samples: int | None
) -> None:
    """Write what became of a data set's records into an empty folder, up to `max_samples` examples.

    Raises DataError for a column that its entry names and no record has.
    """
    counted = _Counted(dataset)
    with ExitStack() as files:
        ids, trained, ends, middles, lines = [
            files.enter_context((folder / name).open("wb")) for name in (_IDS, _TRAINED, _ENDS, _MIDDLES, _REJECTED)
        ]
        for record, outcome in outcomes:
            counted.record(record)
            if isinstance(outcome, RecordError):
                lines.write(msgspec.json.encode(counted.rejection(record, outcome)) + b"\n")
                continue
            counted.example(outcome)
            sides = (outcome.example,) if outcome.rejected is None else (outcome.example, outcome.rejected)
            for place, side in enumerate(sides):
                mask = np.asarray(side.labels) != IGNORED
                ids.write(np.asarray(side.input_ids, np.int32).tobytes())
                trained.write(mask.tobytes())
                if place:
                    middles.write(counted.counts["tokens"].to_bytes(8, sys.byteorder))
                counted.counts.update(tokens=len(mask), trained_tokens=int(mask.sum()))
            ends.write(counted.counts["tokens"].to_bytes(8, sys.byteorder))
            if counted.counts["examples"] == max_samples:
                break
        for file in (ids, trained, ends, middles, lines):
            file.flush()
            os.fsync(file.fileno())
    (folder / _ACCOUNT).write_bytes(to_json(counted.account()))


class _Counted:
    """What became of the records so far."""

    def __init__(self, dataset: DataSet) -> None:
        self.counts = Counter(examples=0, tokens=0, trained_tokens=0, cut_dialogues=0, cut_turns=0, cut_tokens=0)
        self._dataset = dataset
        self._unread = Counter[str]()
        self._unseen, self._keys = set(dataset.named), set[str]()
        self._rejected: dict[Reason, Rejects] = {}

    def record(self, record: Record) -> None:
        self._unread.update(unread_keys(record.value, self._dataset.layout))
        if isinstance(record.value, dict):
            self._unseen -= record.value.keys()
            self._keys.update(map(str, record.value))

    def rejection(self, record: Record, error: RecordError) -> Rejected:
        reject = Rejected(file=record.file, line=record.line, reason=error.reason, message=str(error))
        before = self._rejected.get(error.reason, Rejects(count=0, first=reject))
        self._rejected[error.reason] = Rejects(count=before.count + 1, first=before.first)
        return reject

    def example(self, encoded: Encoded) -> None:
        """All but its tokens."""
        self._unread.update(encoded.unrendered)
        cut = {"cut_turns": encoded.cut_turns, "cut_tokens": encoded.cut_tokens}
        self.counts.update(examples=1, cut_dialogues=int(encoded.cut_tokens > 0), **cut)

    def account(self) -> DatasetAccount:
        """Raises DataError for a column that the data set's entry names and no record has."""
        dataset = self._dataset
        if self._unseen and self.counts["examples"]:
            column = min(self._unseen)
            near = get_close_matches(column, self._keys, 1)
            did_you_mean = f", did you mean {near[0]!r}?" if near else ""
            raise DataError(
                f"The data set {dataset.name!r} names the column {column!r}, which no record has{did_you_mean}; they "
                f"have: {', '.join(sorted(self._keys))}."
            )
        return DatasetAccount(
            name=dataset.name,
            digest=dataset.digest,
            rejected=self._rejected,
            num_samples=dataset.num_samples,
            unread=dict(self._unread),
            read_as=dataset.read_as,
            pairs=dataset.layout.is_ranked,
            **self.counts,
        )


def open_dataset(folder: Path) -> CachedDataset | None:
    """The data set in `folder`; None where there is none, or a file of it has another size than it should."""

    def mapped(name: str, count: int, kind: Any) -> Any:
        path = folder / name
        if path.stat().st_size != count * np.dtype(kind).itemsize:
            raise FileNotFoundError(path)
        return np.memmap(path, kind, "r", shape=(count,)) if count else np.empty(0, kind)

    path = folder / _ACCOUNT
    try:
        account = from_json(path.read_bytes(), DatasetAccount, str(path))
        return CachedDataset(
            folder,
            account,
            ids=mapped(_IDS, account.tokens, np.int32),
            trained=mapped(_TRAINED, account.tokens, np.bool_),
            ends=mapped(_ENDS, account.examples, np.int64),
            middles=mapped(_MIDDLES, account.examples if account.pairs else 0, np.int64),
        )
    except FileNotFoundError:
        return None


def collect_rejected(folders: Sequence[Path], into: Path) -> None:
    with into.open("wb") as whole:
        for folder in folders:
            with (folder / _REJECTED).open("rb") as part:
                shutil.copyfileobj(part, whole)
