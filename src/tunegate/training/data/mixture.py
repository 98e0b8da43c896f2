"""Which examples of several data sets are trained on, in which order, and which are the validation split.

Pure: the seed decides. Examples are counted through, one data set after the other; nothing is known of their contents.
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

    `interleave_under` ends when the first data set is used up, `interleave_over` when the last one is, and begins
    the others anew until then.
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
    samples = mixture.num_samples or (None,) * len(counts)
    firsts = np.cumsum([0, *counts[:-1]])
    drawn = [
        first + _sample(count, number, random) for first, count, number in zip(firsts, counts, samples, strict=True)
    ]
    validation = _validation_split(np.concatenate(drawn), mixture.val_size, random)
    kept = [indices[~np.isin(indices, validation)] for indices in drawn]
    if empty := [number for number, indices in enumerate(kept, start=1) if not len(indices)]:
        raise DataError(
            f"--val_size {mixture.val_size:g} takes every example of data set {empty[0]} for validation; "
            "give a smaller one."
        )
    parts = [
        _repeated(indices, count, number, random) for indices, count, number in zip(kept, counts, samples, strict=True)
    ]
    if mixture.strategy == "concat":
        return Split(np.concatenate(parts), validation)
    return Split(_interleaved(parts, mixture, random), validation)


def random_draws(*seeds: int) -> Any:
    """Random draws that are the same in every release of numpy, which its newer generators don't promise."""
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence(seeds)))


def _sample(count: int, number: int | None, random: Any) -> Indices:
    """All examples, or `number` of them, in their order."""
    if number is None or number >= count:
        return np.arange(count, dtype=np.int64)
    return np.sort(random.permutation(count)[:number]).astype(np.int64)


def _validation_split(indices: Indices, val_size: float, random: Any) -> Indices:
    if not val_size:
        return indices[:0]
    number = round(val_size * len(indices)) if val_size < 1 else int(val_size)
    if not 0 < number < len(indices):
        raise DataError(
            f"--val_size {val_size:g} takes {number} of {len(indices)} examples for validation; give a number of them "
            f"from 1 to {len(indices) - 1}, a share that comes to that, or 0 for no validation split."
        )
    return np.sort(random.permutation(indices)[:number])


def _repeated(indices: Indices, count: int, number: int | None, random: Any) -> Indices:
    """`indices`, and again some of them where a larger `number` is asked for than all `count`."""
    if number is None or number <= count:
        return indices
    share = round(number * len(indices) / count)
    whole, rest = divmod(share, len(indices))
    return np.sort(np.concatenate([np.tile(indices, whole), random.permutation(indices)[:rest]]))


def _interleaved(parts: Sequence[Indices], mixture: Mixture, random: Any) -> Indices:
    under = mixture.strategy == "interleave_under"
    turns = np.zeros(0, dtype=np.int16)
    while True:
        turns = np.concatenate([turns, _turns(len(parts), mixture.weights, max(1024, len(turns)), random)])
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


def _turns(datasets: int, weights: Sequence[float], number: int, random: Any) -> npt.NDArray[np.int16]:
    """Whose turn it is, `number` times: drawn at random where there are weights, else one after the other."""
    if not weights:
        return np.tile(np.arange(datasets, dtype=np.int16), -(-number // datasets))
    shares = np.array(weights) / np.sum(weights)
    draws: npt.NDArray[np.float64] = random.random_sample(number)
    turns = np.searchsorted(np.cumsum(shares), draws, side="right")
    return np.minimum(turns, datasets - 1).astype(np.int16)  # the sum of the shares may stay just below 1
