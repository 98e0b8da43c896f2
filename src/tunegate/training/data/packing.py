"""In which order examples are trained on, which share a row when they are packed, and how much padding that leaves.

Pure functions of the examples' lengths and the seed: every rank, and every resumed run, comes to the same order.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tunegate.training.data.mixture import Indices, random_draws

_BATCHES_SORTED_TOGETHER = 16
_WINDOW = 4096  # examples packed together: far more fill a row hardly better, and would take longer

Lengths = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Packs:
    """Which examples share a row: `examples` of all packs one after the other, and where in it each pack ends."""

    examples: Indices
    ends: Indices

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> Indices:
        return self.examples[self.ends[index - 1] if index else 0 : self.ends[index]]

    def lengths(self, lengths: Lengths) -> Lengths:
        """Tokens in each pack, of examples of these `lengths`."""
        filled = np.cumsum(lengths[self.examples])[self.ends - 1]
        return np.diff(filled, prepend=0)


def order_of(lengths: Lengths, global_batch: int, seed: int, epoch: int, *, shuffled: bool = True) -> Indices:
    """Every example once: in their own order, or shuffled so that those of one global batch have about one length."""
    if not shuffled:
        return np.arange(len(lengths), dtype=np.int64)
    random = random_draws(seed, epoch)
    order = random.permutation(len(lengths)).astype(np.int64)
    # Sorted by length within each span of batches: lexsort is stable, and its last key counts first.
    span = np.arange(len(order)) // (global_batch * _BATCHES_SORTED_TOGETHER)
    grouped = order[np.lexsort((lengths[order], span))]
    # A short batch stays last: before it, every global batch is cut where it was grouped.
    whole = len(grouped) // global_batch * global_batch
    batches = grouped[:whole].reshape(-1, global_batch)
    return np.concatenate([batches[random.permutation(len(batches))].ravel(), grouped[whole:]])


def pack(lengths: Lengths, capacity: int, seed: int, *, shuffled: bool = True) -> Packs:
    """Put examples together up to `capacity` tokens, each whole: the longest first, each where it leaves least room.

    Windows of examples are packed one after the other, of a shuffled order or, unshuffled, in about their own.
    """
    order = random_draws(seed).permutation(len(lengths)) if shuffled else np.arange(len(lengths))
    packs: list[list[int]] = []
    for start in range(0, len(order), _WINDOW):
        window = order[start : start + _WINDOW]
        members: list[list[int]] = []  # of each pack, as places in the window
        room: list[tuple[int, int]] = []  # what is left in each pack, least first, and its number
        for place in np.argsort(-lengths[window], kind="stable"):
            length = int(lengths[window[place]])
            found = bisect_left(room, (length, 0))
            left, number = room.pop(found) if found < len(room) else (capacity, len(members))
            if number == len(members):
                members.append([])
            members[number].append(int(place))
            insort(room, (left - length, number))
        # In the order of the window, which is the files' where nothing is shuffled.
        packs += [[int(window[place]) for place in sorted(places)] for places in sorted(members, key=min)]
    ends = np.cumsum([len(examples) for examples in packs], dtype=np.int64)
    return Packs(np.array([example for examples in packs for example in examples], dtype=np.int64), ends)


def padding_share(lengths: Lengths, order: Indices, batch: int) -> float:
    """The share of positions that hold no token, when `batch` rows at a time are padded to their longest."""
    ordered = lengths[order]
    starts = np.arange(0, len(ordered), batch)
    sizes = np.diff(np.append(starts, len(ordered)))
    return 1 - float(ordered.sum()) / float((np.maximum.reduceat(ordered, starts) * sizes).sum())
