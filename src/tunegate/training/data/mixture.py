"""Which examples of several data sets are trained on, in which order, and which are the validation split.

Pure: the seed decides. Examples are counted through, one data set after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tunegate.api.errors import DataError

Indices = npt.NDArray[np.int64]
Strategy = Literal["concat", "interleave_under", "interleave_over"]


@dataclass(frozen=True)
class Mixture:
    """How data sets are mixed. `weights`: how often each has its turn, equally often where none are given;
    `num_samples`: examples drawn of each.

    `interleave_under` ends when the first data set is used up, `interleave_over` when the last one is, and starts
    the others again until then.
    """

    strategy: Strategy = "concat"
    weights: tuple[float, ...] = ()
    num_samples: tuple[int | None, ...] = ()
    val_size: float = 0.0
    seed: int = 42


@dataclass(frozen=True)
class Split:
    train: Indices
    validation: Indices


def mix(counts: Sequence[int], mixture: Mixture) -> Split:
    """The examples to train on and the validation split, of data sets of so many examples each.

    No example is in both; none is doubled but by `interleave_over`, or where more samples are asked for than there are.
    Raises DataError when nothing would be left to train on, or to measure.
    """
    random = random_draws(mixture.seed)
    sizes = [
        count if size is None else size
        for count, size in zip(counts, mixture.num_samples or (None,) * len(counts), strict=True)
    ]
    drawn = []
    for end, count, size in zip(np.cumsum(counts), counts, sizes, strict=True):
        indices = np.arange(end - count, end, dtype=np.int64)
        drawn.append(_draw(indices, size, random) if size < count else indices)
    everything, val_size = np.concatenate(drawn), mixture.val_size
    held_out = round(val_size * len(everything)) if val_size < 1 else int(val_size)
    if val_size and not 0 < held_out < len(everything):
        raise DataError(
            f"--val_size {val_size:g} takes {held_out} of {len(everything)} examples for validation; give a number of "
            f"them from 1 to {len(everything) - 1}, a share that comes to that, or 0 for no validation split."
        )
    validation = _draw(everything, held_out, random) if val_size else everything[:0]
    kept = [indices[~np.isin(indices, validation)] for indices in drawn]
    if empty := [number for number, indices in enumerate(kept, start=1) if not len(indices)]:
        raise DataError(
            f"--val_size {val_size:g} takes every example of data set {empty[0]} for validation; give a smaller one."
        )
    parts = [
        # more samples than examples: the same share of those that are left, some of them again
        _draw(indices, round(size * len(indices) / count), random) if size > count else indices
        for indices, count, size in zip(kept, counts, sizes, strict=True)
    ]
    train = np.concatenate(parts) if mixture.strategy == "concat" else _interleaved(parts, mixture, random)
    return Split(train, validation)


def random_draws(*seeds: int) -> Any:
    """Random draws that are the same in every release of numpy, which its newer generators don't promise."""
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence(seeds)))


def _draw(indices: Indices, number: int, random: Any) -> Indices:
    """`number` of `indices`, in their order; where that is more than there are, all of them once or more, and some."""
    whole, rest = divmod(number, len(indices))
    return np.sort(np.concatenate([np.tile(indices, whole), random.permutation(indices)[:rest]]))


def _interleaved(parts: Sequence[Indices], mixture: Mixture, random: Any) -> Indices:
    """The parts in turns: drawn at random where there are weights, else one after the other."""
    under = mixture.strategy == "interleave_under"
    turns = np.zeros(0, dtype=np.int16)
    while True:
        number = max(1024, len(turns))
        if mixture.weights:
            ends_of_shares = np.cumsum(np.array(mixture.weights) / np.sum(mixture.weights))
            more = np.searchsorted(ends_of_shares, random.random_sample(number), side="right")
            more = np.minimum(more, len(parts) - 1)  # the sum of the shares may stay just below 1
        else:
            more = np.tile(np.arange(len(parts)), -(-number // len(parts)))
        turns = np.concatenate([turns, more.astype(np.int16)])
        places = [np.flatnonzero(turns == number) for number in range(len(parts))]
        used_up = [
            int(place[len(part) - 1]) + 1 if len(place) >= len(part) else None
            for place, part in zip(places, parts, strict=True)
        ]
        ends = [end for end in used_up if end is not None]
        if (under and ends) or len(ends) == len(parts):
            break
    end = min(ends) if under else max(ends)
    mixed = np.empty(end, dtype=np.int64)
    for place, part in zip(places, parts, strict=True):
        until = place[place < end]
        mixed[until] = part[np.arange(len(until)) % len(part)]
    return mixed
