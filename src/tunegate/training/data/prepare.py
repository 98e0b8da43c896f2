"""The tokens a run trains on, made once for the same data, tokenizer and limits, and read from disk.

Each data set has a folder of its own in the cache, which is written as the rows are read, so that memory does not grow
with the corpus. Whoever trains opens those folders; how rows are mixed and held out is decided then, by their numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, overload

import msgspec
import numpy as np

from tunegate.api.codec import Resource
from tunegate.api.errors import DataError
from tunegate.files import alone_with, digest_of_file, disk_errors_as
from tunegate.models.materialize import default_cache
from tunegate.models.templates import load_template
from tunegate.training.config import TrainConfig
from tunegate.training.data.cache import (
    DatasetAccount,
    Part,
    Preparing,
    Report,
    collect_rejected,
    first_rejected,
    is_whole,
    open_part,
    read_account,
    write_tokens,
)
from tunegate.training.data.datasets import DataSet, find_datasets
from tunegate.training.data.mixture import Mixture, Rows, mix
from tunegate.training.data.packing import Lengths, order_of, pack, padding_share
from tunegate.training.data.tokenize import Example, limits_of, load_tokenizer

__all__ = ["Account", "DatasetAccount", "Examples", "Prepared", "Preparing", "Report"]
__all__ += ["account_of", "open_tokens", "prepare"]

_FORMAT = 1  # raise it when the same settings come to other tokens, or lie in other files


class Account(Resource, frozen=True, kw_only=True):
    """What a run trains on. `shares`: of each data set in the rows trained on; `padding`: share of positions without a
    token that is to be expected, as rows are batched and as they would be packed."""

    datasets: tuple[DatasetAccount, ...]
    shares: dict[str, float]
    train_rows: int
    validation_rows: int
    padding: float
    padding_packed: float


class Examples(Sequence[Example]):
    """Rows of tokenized data sets, read from disk when they are asked for; `rows` numbers them through."""

    def __init__(self, parts: Sequence[Part], rows: Rows) -> None:
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
    """Tokenize the run's data sets where that was not done before, or `overwrite_cache` asks for it again.

    The rejected rows are written to `rejects`, one JSON line each, also where there are too many of them.

    Several processes may ask at once: one writes, the others wait for it. Raises UsageError or DataError for what
    can't be used, ModelError for a tokenizer that lacks the template's tokens.
    """
    datasets = find_datasets(config.dataset_dir, config.dataset, config.endpoint_url)
    tokenizer: Any = None
    folders = []
    for dataset in datasets:
        folder = default_cache() / "tokens" / _key(dataset, config, tokenizer_folder)
        with disk_errors_as(DataError, folder, "make room, or set TUNEGATE_CACHE."), alone_with(folder):
            if config.overwrite_cache or not is_whole(folder):
                tokenizer = tokenizer or load_tokenizer(tokenizer_folder, config.template)
                write_tokens(folder, dataset, tokenizer, limits_of(config), config.max_samples, report or _ignore)
        folders.append(folder)
    if rejects:
        collect_rejected(folders, rejects)
    _check_rejected(config, folders)
    return open_tokens(config, folders)


def open_tokens(config: TrainConfig, folders: Sequence[Path]) -> Prepared:
    """What `prepare` left in `folders`, mixed and split as the run asks for."""
    datasets = tuple(read_account(folder) for folder in folders)
    parts = [open_part(folder, account) for folder, account in zip(folders, datasets, strict=True)]
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


def _check_rejected(config: TrainConfig, folders: Sequence[Path]) -> None:
    """Raise DataError when a data set has nothing to train on, or too large a share of all rows was rejected."""
    accounts = [read_account(folder) for folder in folders]
    rejected = [sum(account.rejected.values()) for account in accounts]
    firsts = [first_rejected(folder) for folder, count in zip(folders, rejected, strict=True) if count]
    for account, count, folder in zip(accounts, rejected, folders, strict=True):
        if account.rows == 0:
            raise DataError(
                f"None of the {count} rows of the data set {account.name!r} can be used; "
                f"the first is {first_rejected(folder)}."
            )
    total = sum(rejected) + sum(account.rows for account in accounts)
    if sum(rejected) / total > config.max_rejected:
        raise DataError(
            f"{sum(rejected)} of {total} rows were rejected, more than --max_rejected {config.max_rejected:g} allows; "
            f"the first is {firsts[0]}."
        )


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


def _ignore(news: Preparing) -> None:
    pass
