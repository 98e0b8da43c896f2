"""What a run trains on: the examples of its cached data sets, mixed and split as it asks for.

Every rank opens the same folders and comes to the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np

from tunegate.api.codec import Resource
from tunegate.api.errors import DataError
from tunegate.training.config import TrainConfig
from tunegate.training.data.cache import CachedDataset, DatasetAccount, open_dataset
from tunegate.training.data.mixture import Indices, Mixture, mix
from tunegate.training.data.packing import Lengths, order_of, pack, padding_share
from tunegate.training.data.tokenize import Example, limits_of


class Examples(Sequence[Example]):
    """Examples of several data sets, read from disk when they are asked for; `indices` count over all data sets."""

    def __init__(self, datasets: Sequence[CachedDataset], indices: Indices) -> None:
        self._datasets = datasets
        self._indices = indices
        self._firsts = np.cumsum([0, *(len(dataset.ends) for dataset in datasets)])
        self.lengths: Lengths = np.concatenate([dataset.lengths for dataset in datasets])[indices]

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def tokens(self) -> Lengths:
        """Of each example, of a pair those of both sides."""
        every: Lengths = np.concatenate([np.diff(dataset.ends, prepend=0) for dataset in self._datasets])
        return every[self._indices]

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Examples: ...
    def __getitem__(self, index: int | slice) -> Example | Examples:
        if isinstance(index, slice):
            return Examples(self._datasets, self._indices[index])
        dataset, place = self._find(index)
        return dataset.example(place)

    def pair(self, index: int) -> tuple[Example, Example]:
        """The sides of an example that is a pair, chosen and rejected."""
        dataset, place = self._find(index)
        return dataset.pair(place)

    def _find(self, index: int) -> tuple[CachedDataset, int]:
        example = self._indices[index]
        dataset = int(np.searchsorted(self._firsts, example, side="right")) - 1
        return self._datasets[dataset], int(example - self._firsts[dataset])


class Pairs(Sequence[tuple[Example, Example]]):
    """The same examples by their two sides, chosen and rejected; `lengths`: of the longer ones."""

    def __init__(self, examples: Examples) -> None:
        self._examples = examples
        self.lengths = examples.lengths

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> tuple[Example, Example]:  # type: ignore[override]
        return self._examples.pair(index)


@dataclass(frozen=True)
class TrainingData:
    """`shares`: of each data set in the examples trained on. From `folders` every rank opens the same."""

    train: Examples
    validation: Examples
    datasets: tuple[DatasetAccount, ...]
    folders: tuple[Path, ...]
    shares: dict[str, float]


class Account(Resource, frozen=True, kw_only=True):
    """What a run trains on. `shares`: of each data set in the examples trained on; `padding`: share of positions
    without a token that is to be expected, as examples are batched and as they would be packed; pairs are not."""

    datasets: tuple[DatasetAccount, ...]
    shares: dict[str, float]
    train_examples: int
    validation_examples: int
    padding: float
    padding_packed: float | None


def open_training_data(config: TrainConfig, folders: Sequence[Path]) -> TrainingData:
    """What `prepare` left in `folders`. Raises DataError where it is not there any more."""
    datasets = []
    for folder in folders:
        dataset = open_dataset(folder)
        if dataset is None:
            raise DataError(f"The tokens in {folder} are gone or damaged; give the same command again to make them.")
        datasets.append(dataset)
    return mixed(config, datasets)


def mixed(config: TrainConfig, datasets: Sequence[CachedDataset]) -> TrainingData:
    """The data sets, mixed and split as the run asks for."""
    accounts = tuple(dataset.account for dataset in datasets)
    counts = [account.examples for account in accounts]
    mixture = Mixture(
        config.mix_strategy,
        config.interleave_probs,
        tuple(account.num_samples for account in accounts),
        config.val_size,
        config.seed,
    )
    split = mix(counts, mixture)
    trained = np.histogram(split.train, np.cumsum([0, *counts]))[0] / len(split.train)
    return TrainingData(
        Examples(datasets, split.train),
        Examples(datasets, split.validation),
        accounts,
        tuple(dataset.folder for dataset in datasets),
        {account.name: float(share) for account, share in zip(accounts, trained, strict=True)},
    )


def account_of(data: TrainingData, config: TrainConfig) -> Account:
    """The account of what is trained on, with the padding that one process's batches will have."""
    lengths = data.train.lengths
    limit, batch, shuffled = limits_of(config).longest, config.per_device_train_batch_size, config.is_shuffle
    global_batch = batch * config.gradient_accumulation_steps * config.nproc_per_node

    def padding(lengths: Lengths) -> float:
        return padding_share(lengths, order_of(lengths, global_batch, config.seed, 0, shuffled=shuffled), batch)

    if config.stage == "dpo":
        # Of two rows as long as a pair's longer side, the other one fills a part.
        filled = float(data.train.tokens.sum()) / float(2 * lengths.sum())
        alone, packed = 1 - (1 - padding(lengths)) * filled, None
    else:
        packs = pack(lengths, limit, config.seed, shuffled=shuffled)
        alone, packed = padding(lengths), padding(packs.lengths(lengths))

    return Account(
        datasets=data.datasets,
        shares=data.shares,
        train_examples=len(data.train),
        validation_examples=len(data.validation),
        padding=alone,
        padding_packed=packed,
    )
