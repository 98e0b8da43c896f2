"""Which dialogues go into a batch, and how they become one tensor: little padding, and the same order every time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler

from tunegate.training.data.examples import Examples
from tunegate.training.data.packing import Lengths, Packs, order_of
from tunegate.training.data.tokenize import IGNORED, Example

FILLER = -1
_UNTRAINED = Example(np.zeros(1, np.int32), np.full(1, IGNORED, np.int32))


class Order(Sampler[int]):
    """The order of each epoch's examples, in which those of one global batch have about one length.

    FILLER makes the last batch as large as the others: accelerate would fill it with rows that were trained on before,
    and with other ones for each number of processes.
    It depends on nothing but the lengths, the seed and the epoch: every rank and every resumed run sees the same one.
    (Trainer's own sampler draws from the process's random numbers, which dropout lets drift apart.)
    """

    def __init__(self, lengths: Lengths, global_batch: int, seed: int, *, shuffled: bool = True) -> None:
        self._lengths = lengths
        self._global_batch = global_batch
        self._seed = seed
        self._shuffled = shuffled
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        return -(-len(self._lengths) // self._global_batch) * self._global_batch

    def __iter__(self) -> Iterator[int]:
        order = order_of(self._lengths, self._global_batch, self._seed, self._epoch, shuffled=self._shuffled)
        return chain(map(int, order), repeat(FILLER, len(self) - len(order)))


class WithFiller(Sequence[Any]):
    """Rows of examples or of packs, and None for FILLER."""

    def __init__(self, rows: Any) -> None:
        self._rows = rows
        self.lengths = rows.lengths

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        return None if index == FILLER else self._rows[index]


class Packed(Sequence[tuple[Example, ...]]):
    """Examples, several to a row."""

    def __init__(self, examples: Examples, packs: Packs) -> None:
        self._examples = examples
        self._packs = packs
        self.lengths = packs.lengths(examples.lengths)

    def __len__(self) -> int:
        return len(self._packs)

    def __getitem__(self, index: int) -> tuple[Example, ...]:  # type: ignore[override]
        return tuple(self._examples[int(row)] for row in self._packs[index])


class Collator:
    """Pads a batch on the right to its longest row; a row is an example, or several.

    apart: several to a row, which don't see each other. Their positions begin at 0 in each, and `cu_seq_lens_q` says
    where each begins, counted over all rows, and where the last ends: with these, and without an attention mask,
    transformers lets no token look beyond its own dialogue. The padding is one more dialogue, that nothing trains.
    """

    def __init__(self, padding: int, *, apart: bool = False) -> None:
        self._padding = padding
        self._apart = apart

    def __call__(self, batch_rows: Sequence[Example | tuple[Example, ...] | None]) -> dict[str, torch.Tensor]:
        rows = [row for row in batch_rows if row is not None] or [_UNTRAINED]
        packs = [row if isinstance(row, tuple) else (row,) for row in rows]
        lengths = [sum(len(example.input_ids) for example in pack) for pack in packs]
        shape = len(rows), max(lengths)
        input_ids, labels = torch.full(shape, self._padding), torch.full(shape, IGNORED)
        mask, positions = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
        for row, pack in enumerate(packs):
            start = 0
            for example in pack:
                end = start + len(example.input_ids)
                input_ids[row, start:end] = torch.tensor(example.input_ids)
                labels[row, start:end] = torch.tensor(example.labels)
                positions[row, start:end] = torch.arange(end - start)
                start = end
            mask[row, :start] = 1
            positions[row, start:] = torch.arange(shape[1] - start)
        batch = {"input_ids": input_ids, "labels": labels, "tokens": torch.tensor(sum(lengths))}
        if not self._apart:
            return {**batch, "attention_mask": mask}
        begins = (positions.flatten() == 0).nonzero().flatten()
        ends = torch.tensor([positions.numel()])
        return {**batch, "position_ids": positions, "cu_seq_lens_q": torch.cat([begins, ends]).int()}


class PairCollator(Collator):
    """The same for pairs: the chosen answers in the first half of the rows, and in the same order the rejected."""

    def __call__(self, batch_rows: Sequence[tuple[Example, Example] | None]) -> dict[str, torch.Tensor]:  # type: ignore[override]
        pairs = [pair for pair in batch_rows if pair is not None] or [(_UNTRAINED, _UNTRAINED)]
        return super().__call__([pair[side] for side in (0, 1) for pair in pairs])
