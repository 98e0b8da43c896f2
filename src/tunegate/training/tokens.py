"""The tokens a run trains on, made once for the same data, tokenizer and limits, and read from disk.

Each data set has a folder of its own in the cache, which is written as the rows are read, so that memory does not grow
with the corpus. Whoever trains opens those folders; how rows are mixed and held out is decided then, by their numbers.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from fcntl import LOCK_EX, flock
from itertools import islice
from pathlib import Path
from typing import Any, overload

import msgspec
import numpy as np

from tunegate.api.errors import DataError
from tunegate.api.resource import Resource, from_json, to_json
from tunegate.models.folders import default_cache, digest_of_file
from tunegate.models.templates import load_template
from tunegate.training.arguments import TrainConfig
from tunegate.training.datasets import DataSet, find_datasets
from tunegate.training.encode import IGNORED, Encoded, Example, Ids, encode, limits_of, load_tokenizer
from tunegate.training.mixture import Mixture, Rows, mix
from tunegate.training.order import Lengths, order_of, pack, padding_share
from tunegate.training.records import read_records
from tunegate.training.rows import Message, dialogue_of

_FORMAT = 1  # raise it when the same settings come to other tokens, or lie in other files
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


class Account(Resource, frozen=True, kw_only=True):
    """What a run trains on. `shares`: of each data set in the rows trained on; `padding`: share of positions without a
    token that is to be expected, as rows are batched and as they would be packed."""

    datasets: tuple[DatasetAccount, ...]
    shares: dict[str, float]
    train_rows: int
    validation_rows: int
    padding: float
    padding_packed: float


class Preparing(Resource, frozen=True, kw_only=True):
    """How far a data set is tokenised: rows read, and the share of its bytes."""

    dataset: str
    rows: int
    rows_per_second: float
    share: float


Report = Callable[[Preparing], None]


class Examples(Sequence[Example]):
    """Rows of tokenised data sets, read from disk when they are asked for; `rows` numbers them through."""

    def __init__(self, parts: Sequence[_Part], rows: Rows) -> None:
        self._parts = parts
        self._rows = rows
        self._firsts = np.cumsum([0, *(len(part.ends) for part in parts)])
        every = np.concatenate([np.diff(part.ends, prepend=0) for part in parts])
        self.lengths: Lengths = every[rows]

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Examples: ...
    def __getitem__(self, index: int | slice) -> Example | Examples:
        if isinstance(index, slice):
            return Examples(self._parts, self._rows[index])
        row = self._rows[index]
        number = int(np.searchsorted(self._firsts, row, side="right")) - 1
        return self._parts[number].example(int(row - self._firsts[number]))


@dataclass(frozen=True)
class _Part:
    """One data set's folder, mapped into memory."""

    ids: Ids
    labels: Ids
    ends: Rows

    def example(self, row: int) -> Example:
        span = slice(self.ends[row - 1] if row else 0, self.ends[row])
        return Example(self.ids[span], self.labels[span])


@dataclass(frozen=True)
class Prepared:
    """`folders` hold the tokens; with them, every rank opens the same."""

    train: Examples
    validation: Examples
    datasets: tuple[DatasetAccount, ...]
    folders: tuple[Path, ...]
    shares: dict[str, float]


def prepare(
    config: TrainConfig, tokenizer_folder: Path, report: Report | None = None, *, rejects: Path | None = None
) -> Prepared:
    """Tokenise the run's data sets where that was not done before, or `overwrite_cache` asks for it again.

    The rejected rows are written to `rejects`, one JSON line each, also where there are too many of them.

    Several processes may ask at once: one writes, the others wait for it. Raises UsageError or DataError for what
    can't be used, ModelError for a tokenizer that lacks the template's tokens.
    """
    datasets = find_datasets(config.dataset_dir, config.dataset, config.endpoint_url)
    tokenizer: Any = None
    folders = []
    for dataset in datasets:
        folder = default_cache() / "tokens" / _key(dataset, config, tokenizer_folder)
        with _alone(folder):
            if config.overwrite_cache or not _is_whole(folder):
                tokenizer = tokenizer or load_tokenizer(tokenizer_folder, config.template)
                _write(dataset, tokenizer, config, folder, report or _ignore)
        folders.append(folder)
    if rejects:
        _collect_rejected(folders, rejects)
    _check_rejected(config, folders)
    return open_tokens(config, folders)


def open_tokens(config: TrainConfig, folders: Sequence[Path]) -> Prepared:
    """What `prepare` left in `folders`, mixed and split as the run asks for."""
    datasets = tuple(_account(folder) for folder in folders)
    parts = [_open(folder, account) for folder, account in zip(folders, datasets, strict=True)]
    counts = [account.rows for account in datasets]
    mixture = Mixture(
        config.mix_strategy,
        config.interleave_probs,
        tuple(account.num_samples for account in datasets),
        config.val_size,
        config.seed,
    )
    split = mix(counts, mixture)
    edges = np.cumsum([0, *counts])
    trained = np.histogram(split.train, edges)[0] / len(split.train)
    return Prepared(
        Examples(parts, split.train),
        Examples(parts, split.validation),
        datasets,
        tuple(folders),
        {account.name: float(share) for account, share in zip(datasets, trained, strict=True)},
    )


def account_of(prepared: Prepared, config: TrainConfig) -> Account:
    """The account of what is trained on, with the padding that one process's batches will have."""
    lengths = prepared.train.lengths
    limit, batch, shuffled = limits_of(config).longest, config.per_device_train_batch_size, config.is_shuffle
    global_batch = batch * config.gradient_accumulation_steps * config.nproc_per_node
    packed = pack(lengths, limit, config.seed, shuffled=shuffled).lengths(lengths)

    def padding(lengths: Lengths) -> float:
        return padding_share(lengths, order_of(lengths, global_batch, config.seed, 0, shuffled=shuffled), batch)

    return Account(
        datasets=prepared.datasets,
        shares=prepared.shares,
        train_rows=len(prepared.train),
        validation_rows=len(prepared.validation),
        padding=padding(lengths),
        padding_packed=padding(packed),
    )


def _collect_rejected(folders: Sequence[Path], into: Path) -> None:
    with into.open("wb") as whole:
        for folder in folders:
            with (folder / _REJECTED).open("rb") as part:
                shutil.copyfileobj(part, whole)


def _check_rejected(config: TrainConfig, folders: Sequence[Path]) -> None:
    """Raise DataError when a data set has nothing to train on, or too large a share of all rows was rejected."""
    accounts = [_account(folder) for folder in folders]
    rejected = [sum(account.rejected.values()) for account in accounts]
    firsts = [_first_rejected(folder / _REJECTED) for folder, count in zip(folders, rejected, strict=True) if count]
    for account, count, folder in zip(accounts, rejected, folders, strict=True):
        if account.rows == 0:
            raise DataError(
                f"None of the {count} rows of the data set {account.name!r} can be used; "
                f"the first is {_first_rejected(folder / _REJECTED)}."
            )
    total = sum(rejected) + sum(account.rows for account in accounts)
    if sum(rejected) / total > config.max_rejected:
        raise DataError(
            f"{sum(rejected)} of {total} rows were rejected, more than --max_rejected {config.max_rejected:g} allows; "
            f"the first is {firsts[0]}."
        )


def _first_rejected(path: Path) -> str:
    with path.open("rb") as lines:
        first = from_json(next(lines), Rejected, str(path))
    return f"{first.file}:{first.line}: {first.reason}"


def _key(dataset: DataSet, config: TrainConfig, tokenizer_folder: Path) -> str:
    """Names everything that the tokens of a data set depend on."""
    tokenizer = [
        digest_of_file(path)
        for name in ("tokenizer.json", "tokenizer_config.json")
        if (path := tokenizer_folder / name).is_file()
    ]
    parts = [
        _FORMAT,
        dataset.name,
        dataset.digest,
        [path.name for path in dataset.files],
        dataset.layout,
        dataset.num_samples,
        tokenizer,
        load_template(config.template),
        asdict(limits_of(config)),
        config.max_samples,
    ]
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock beside `folder`; the kernel lets it go when this process ends, however it ends."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with folder.with_name(f"{folder.name}.lock").open("w") as lock:
            flock(lock, LOCK_EX)
            yield
    except OSError as error:
        raise DataError(
            f"{error.filename or folder} can't be written: {error.strerror}; make room, or set TUNEGATE_CACHE."
        ) from error


def _write(dataset: DataSet, tokenizer: Any, config: TrainConfig, folder: Path, report: Report) -> None:
    """Tokenise a data set into a folder beside `folder`, which takes its place when it is complete."""
    partial, old = folder.with_name(f"{folder.name}.partial"), folder.with_name(f"{folder.name}.old")
    for left in (partial, old):
        shutil.rmtree(left, ignore_errors=True)
    partial.mkdir()
    rows = _Reader(dataset, report)
    with ExitStack() as open_files:
        writer = _Writer(partial, open_files)
        while writer.rows != config.max_samples and (batch := list(islice(rows, _BATCH))):
            usable = [row.dialogue for row in batch if not isinstance(row.dialogue, ValueError)]
            encoded = encode(tokenizer, usable, limits_of(config))
            for row in batch:
                writer.add(row, row.dialogue if isinstance(row.dialogue, ValueError) else next(encoded))
                if writer.rows == config.max_samples:
                    break
        writer.finish(dataset)
    if folder.exists():  # somebody may have it open, and goes on reading what is unlinked
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
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


def _account(folder: Path) -> DatasetAccount:
    return from_json((folder / _ACCOUNT).read_bytes(), DatasetAccount, str(folder / _ACCOUNT))


def _is_whole(folder: Path) -> bool:
    if not (folder / _ACCOUNT).is_file():
        return False
    account = _account(folder)
    sizes = {_IDS: 4 * account.tokens, _LABELS: 4 * account.tokens, _ENDS: 8 * account.rows}
    return all((folder / name).is_file() and (folder / name).stat().st_size == size for name, size in sizes.items())


def _open(folder: Path, account: DatasetAccount) -> _Part:
    def mapped(name: str, count: int, kind: Any) -> Any:
        return np.memmap(folder / name, kind, "r", shape=(count,))

    return _Part(
        mapped(_IDS, account.tokens, np.int32),
        mapped(_LABELS, account.tokens, np.int32),
        mapped(_ENDS, account.rows, np.int64),
    )


def _ignore(news: Preparing) -> None:
    pass
