"""From the files a run names to the examples it trains on: made once for the same data, tokenizer and limits.

Files become records, dialogues, token ids and a folder in the cache, one for each data set; how their examples are
mixed and split is decided when they are opened.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from tunegate.api.codec import Resource
from tunegate.api.digest import Digest
from tunegate.api.errors import DataError
from tunegate.files import alone_with, default_cache, digest_of_file, disk_errors_as, new_folder
from tunegate.models.templates import template_for
from tunegate.training.config import TrainConfig
from tunegate.training.data.cache import CachedDataset, DatasetAccount, collect_rejected, open_dataset, write_dataset
from tunegate.training.data.datasets import DataSet, find_datasets
from tunegate.training.data.examples import TrainingData, mixed
from tunegate.training.data.formats import dialogues_of
from tunegate.training.data.pairs import encode_pairs, pairs_of
from tunegate.training.data.readers import Record, RecordError, read_records
from tunegate.training.data.tokenize import Encoded, encode, limits_of, load_tokenizer

_FORMAT = 7  # raise it when the same settings come to other tokens, or lie in other files
_BATCH = 256  # dialogues encoded at once
_REPORT_SECONDS = 1.0


class Preparing(Resource, frozen=True, kw_only=True):
    """How far a data set is tokenized: records read, share of its bytes, and at the end what is not trained, and what
    layout and split were recognized."""

    dataset: str
    records: int
    records_per_second: float
    share: float
    unread: dict[str, int] = {}
    read_as: str = ""


Report = Callable[[Preparing], None]


def prepare(
    config: TrainConfig, tokenizer_folder: Path, report: Report | None = None, *, rejects: Path | None = None
) -> TrainingData:
    """Tokenize the run's data sets where that was not done before, or `overwrite_cache` asks for it again.

    The rejected records are written to `rejects`, one JSON line each, also where there are too many of them.
    Several processes may ask at once: one writes, the others wait for it. Raises UsageError or DataError for what
    can't be used, ModelError for a tokenizer that lacks the template's tokens.
    """
    datasets = []
    tokenizer: Any = None
    for dataset in find_datasets(config.dataset_dir, config.dataset, config.endpoint_url, ranked=config.stage == "dpo"):
        folder = default_cache() / "tokens" / _key(dataset, config, tokenizer_folder)
        with disk_errors_as(DataError, folder, "make room, or set TUNEGATE_CACHE."), alone_with(folder):
            cached = None if config.overwrite_cache else open_dataset(folder)
            if cached is None:
                tokenizer = tokenizer or load_tokenizer(tokenizer_folder, config.template)
                cached = _tokenize(dataset, config, tokenizer, folder, report)
        datasets.append(cached)
    if rejects:
        collect_rejected([dataset.folder for dataset in datasets], rejects)
    accounts = [dataset.account for dataset in datasets]
    for account in accounts:
        if account.examples == 0:
            raise DataError(
                f"None of the {account.rejected_records} records of the data set {account.name!r} can be used; "
                f"the first is {account.first_rejected}."
            )
    rejected = sum(account.rejected_records for account in accounts)
    total = rejected + sum(account.examples for account in accounts)
    if rejected / total > config.max_rejected:
        first = next(account for account in accounts if account.rejected).first_rejected
        raise DataError(
            f"{rejected} of {total} records were rejected, more than --max_rejected {config.max_rejected:g} allows; "
            f"the first is {first}."
        )
    return mixed(config, datasets)


def _tokenize(
    dataset: DataSet, config: TrainConfig, tokenizer: Any, folder: Path, report: Report | None
) -> CachedDataset:
    """Files -> records -> dialogues -> token ids -> the folder in the cache."""
    reading = _Reading(dataset, report)

    def outcomes() -> Iterator[tuple[Record, Encoded | RecordError]]:
        records = reading.records()
        while batch := list(islice(records, _BATCH)):
            if dataset.layout.is_ranked:
                encoded = encode_pairs(tokenizer, pairs_of(batch, dataset.layout), limits_of(config))
            else:
                encoded = encode(tokenizer, dialogues_of(batch, dataset.layout), limits_of(config))
            yield from zip(batch, encoded, strict=True)

    with new_folder(folder) as partial:
        write_dataset(partial, dataset, outcomes(), config.max_samples)
    cached = open_dataset(folder)
    assert cached is not None
    reading.report_share(1.0, cached.account)
    return cached


class _Reading:
    """The records of a data set's files, reporting now and then how far it is."""

    def __init__(self, dataset: DataSet, report: Report | None) -> None:
        self._dataset = dataset
        self._report = report
        self._records = 0
        self._started = self._reported = time.monotonic()

    def records(self) -> Iterator[Record]:
        before, size = 0, self._dataset.size
        for path in self._dataset.files:
            with path.open("rb") as stream:
                for line, value in read_records(path, stream):
                    self._records += 1
                    yield Record(path.name, line, value)
                    if time.monotonic() - self._reported > _REPORT_SECONDS:
                        self.report_share((before + stream.tell()) / size)
            before += path.stat().st_size

    def report_share(self, share: float, account: DatasetAccount | None = None) -> None:
        self._reported = time.monotonic()
        speed = self._records / max(self._reported - self._started, 1e-9)
        if self._report:
            self._report(
                Preparing(
                    dataset=self._dataset.name,
                    records=self._records,
                    records_per_second=speed,
                    share=share,
                    unread=account.unread if account else {},
                    read_as=account.read_as if account else "",
                )
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
        dataset.named,
        tokenizer,
        template_for(config.template, tokenizer_folder),
        asdict(limits_of(config)),
        config.max_samples,
    ]
    return Digest.of_bytes(msgspec.json.encode(parts)).hex
