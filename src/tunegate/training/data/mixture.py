"""Which rows of several data sets are trained on, in which order, and which are held out. Pure: the seed decides.

Rows are numbered through, one data set after the other. Nothing here knows what a row is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tunegate.api.errors import DataError

Rows = npt.NDArray[np.int64]
Strategy = Literal["concat", "interleave_under", "interleave_over"]


@dataclass(frozen=True)
class Mixture:
    """`weights`: how often each data set has its turn, equal where none are given; `num_samples`: rows drawn of each.

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
    train: Rows
    validation: Rows


def mix(counts: Sequence[int], mixture: Mixture) -> Split:
    """The rows to train on and those held out, of data sets of so many rows each.

    No row is in both; none is doubled but by `interleave_over`, or where more samples are asked for than there are.
    Raises DataError when nothing would be left to train on, or to measure.
    """
    dice = draws(mixture.seed)
    wanted = mixture.num_samples or (None,) * len(counts)
    firsts = np.cumsum([0, *counts[:-1]])
    drawn = [first + _sample(count, number, dice) for first, count, number in zip(firsts, counts, wanted, strict=True)]
    validation = _held_out(np.concatenate(drawn), mixture.val_size, dice)
    kept = [rows[~np.isin(rows, validation)] for rows in drawn]
    if empty := [index for index, rows in enumerate(kept) if not len(rows)]:
        raise DataError(
            f"--val_size {mixture.val_size:g} holds out every row of data set {empty[0] + 1}; give a smaller one."
        )
    parts = [_repeated(rows, count, number, dice) for rows, count, number in zip(kept, counts, wanted, strict=True)]
    if mixture.strategy == "concat":
        return Split(np.concatenate(parts), validation)
    return Split(_interleaved(parts, mixture, dice), validation)


def draws(*seeds: int) -> Any:
    """Random draws that are the same in every release of numpy, which its newer generators don't promise."""
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence(seeds)))


def _sample(count: int, wanted: int | None, dice: Any) -> Rows:
    """All rows, or as many as wanted of them, in their order."""
    if wanted is None or wanted >= count:
        return np.arange(count, dtype=np.int64)
    return np.sort(dice.permutation(count)[:wanted]).astype(np.int64)


def _held_out(rows: Rows, val_size: float, dice: Any) -> Rows:
    if not val_size:
        return rows[:0]
    number = round(val_size * len(rows)) if val_size < 1 else int(val_size)
    if not 0 < number < len(rows):
        raise DataError(
            f"--val_size {val_size:g} holds out {number} of {len(rows)} rows; give a number of rows from 1 to "
            f"{len(rows) - 1}, a share that comes to that, or 0 to hold out none."
        )
    return np.sort(dice.permutation(rows)[:number])


def _repeated(rows: Rows, count: int, wanted: int | None, dice: Any) -> Rows:
    """`rows`, and again some of them where more than all `count` were wanted."""
    if wanted is None or wanted <= count:
        return rows
    share = round(wanted * len(rows) / count)
    whole, rest = divmod(share, len(rows))
    return np.sort(np.concatenate([np.tile(rows, whole), dice.permutation(rows)[:rest]]))


def _interleaved(parts: Sequence[Rows], mixture: Mixture, dice: Any) -> Rows:
    weights = np.array(mixture.weights or [1.0] * len(parts))
    shares = weights / weights.sum()
    under = mixture.strategy == "interleave_under"
    turns = np.zeros(0, dtype=np.int16)
    while True:
        turns = np.concatenate([turns, _turns(shares, max(1024, len(turns)), dice, drawn=bool(mixture.weights))])
        places = [np.flatnonzero(turns == index) for index in range(len(parts))]
        used_up = [
            int(place[len(rows) - 1]) + 1 if len(place) >= len(rows) else None
            for place, rows in zip(places, parts, strict=True)
        ]
        ends = [end for end in used_up if end is not None]
        if (under and ends) or len(ends) == len(parts):
            break
    end = min(ends) if under else max(ends)
    mixed = np.empty(end, dtype=np.int64)
    for place, rows in zip(places, parts, strict=True):
        until = place[place < end]
        mixed[until] = rows[np.arange(len(until)) % len(rows)]
    return mixed


def _turns(shares: npt.NDArray[np.float64], number: int, dice: Any, *, drawn: bool) -> npt.NDArray[np.int16]:
    """Whose turn it is, `number` times: by lot where there are weights, else one after the other."""
    if drawn:
        lots: npt.NDArray[np.float64] = dice.random_sample(number)
        turns = np.searchsorted(np.cumsum(shares), lots, side="right")
        return np.minimum(turns, len(shares) - 1).astype(np.int16)  # the sum of the shares may stay just below 1
    whole = -(-number // len(shares))
    return np.tile(np.arange(len(shares), dtype=np.int16), whole)
