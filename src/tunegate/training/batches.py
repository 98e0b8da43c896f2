"""Which dialogues go into a batch, and how they become one tensor: little padding, and the same order every time."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

from tunegate.training.encode import IGNORED, Example

_BATCHES_SORTED_TOGETHER = 16


class LengthGroupedSampler(Sampler[int]):
    """Orders examples so that those of one global batch have about one length.

    The order depends on nothing but the lengths, the seed and the epoch: every rank and every resumed run sees the
    same one. (Trainer's own sampler draws from the process's random numbers, which dropout lets drift apart.)
    """

    def __init__(self, lengths: Sequence[int], global_batch: int, seed: int) -> None:
        self._lengths = lengths
        self._global_batch = global_batch
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        dice = random.Random(self._seed * 1_000_003 + self._epoch)  # noqa: S311
        order = list(range(len(self._lengths)))
        dice.shuffle(order)
        span = self._global_batch * _BATCHES_SORTED_TOGETHER
        grouped: list[int] = []
        for start in range(0, len(order), span):
            grouped += sorted(order[start : start + span], key=lambda index: self._lengths[index])
        batches = [grouped[start : start + self._global_batch] for start in range(0, len(grouped), self._global_batch)]
        short = [batch for batch in batches if len(batch) < self._global_batch]
        full = [batch for batch in batches if len(batch) == self._global_batch]
        dice.shuffle(full)
        # The short one stays last: before it, every global batch is cut where it was grouped.
        return iter([index for batch in (*full, *short) for index in batch])


class Collator:
    """Pads a batch on the right to its longest example."""

    def __init__(self, padding: int) -> None:
        self._padding = padding

    def __call__(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        width = max(len(example.input_ids) for example in examples)
        lengths = [len(example.input_ids) for example in examples]
        return {
            "input_ids": self._rows([example.input_ids for example in examples], width, self._padding),
            "attention_mask": self._rows([[1] * length for length in lengths], width, 0),
            "labels": self._rows([example.labels for example in examples], width, IGNORED),
        }

    def _rows(self, rows: Sequence[Sequence[int]], width: int, fill: int) -> torch.Tensor:
        return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows])
