"""Which chunks come first: those with the very ids that were asked for, then by likeness. Pure.

Likeness is that of vectors; where an index has none, BM25's. Fusing both orders by rank was worse than the better one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MOST_SPREAD, FEW = 0.05, 5
"""The share of the chunks that may hold an id, and how many may in any case; what more hold singles nothing out."""


def ranked(scores: NDArray[np.float32], ids: NDArray[np.int64], most: int, *, above: float = -np.inf) -> list[int]:
    """The positions of at most `most` chunks, the best first.

    ids: how many of the ids that were asked for each chunk holds. Chunks that hold none and whose score is not over
    `above` are left out. Equal ones keep their order.
    """
    wanted = np.flatnonzero((ids > 0) | (scores > above))
    if len(wanted) > most:  # sort only what may be among the first
        keys = ids[wanted] * 4.0 + _squashed(scores[wanted])
        threshold = np.partition(keys, len(keys) - most)[len(keys) - most]
        wanted = wanted[keys >= threshold]
    order = np.lexsort((wanted, -scores[wanted], -ids[wanted]))
    return [int(position) for position in wanted[order[:most]]]


def _squashed(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """Scores within -1..1 in the same order, so that an id outweighs any of them."""
    wide = scores.astype(np.float64)
    squashed: NDArray[np.float64] = wide / (1.0 + np.abs(wide))
    return squashed
