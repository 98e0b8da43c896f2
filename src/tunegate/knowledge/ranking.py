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
        kept = scores[wanted].astype(np.float64)
        keys = ids[wanted] * 4.0 + kept / (1.0 + np.abs(kept))  # within -1..1, so that an id outweighs any score
        threshold = np.partition(keys, len(keys) - most)[len(keys) - most]
        wanted = wanted[keys >= threshold]
    order = np.lexsort((wanted, -scores[wanted], -ids[wanted]))
    return [int(position) for position in wanted[order[:most]]]
