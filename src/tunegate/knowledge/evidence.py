"""Whether what was found answers a question: a chance, from a few signs, weighed as a set of questions teaches.

No sign alone tells that, least of all the likeness of the best chunk, which differs from index to index. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

NOT_FOUND = {"en": "The knowledge base does not say.", "zh": "知识库中没有相关内容。"}
"""The sentence that stands for an answer where the index holds none."""
SIGNS = ("likeness", "coverage", "lead", "missingIds")
"""likeness: the cosine of the best chunk, 0 without vectors. coverage: how much of the question's words, the rare ones
above all, is in it. lead: how far the fifth chunk is behind it. missingIds: whether an id is asked for that no chunk
holds."""
_RIDGE = 1.0  # keeps weights small where few questions tell all apart
_ALIKE = 1e-6
_ROUNDS = 50
Signs = Sequence[float]


def learn(answerable: Sequence[Signs], others: Sequence[Signs]) -> tuple[float, ...]:
    """The weight of each sign, and one for none: logistic regression to which both kinds of questions count alike."""
    rows = np.array([*answerable, *others], dtype=np.float64)
    middle, spread = rows.mean(axis=0), rows.std(axis=0)
    spread[spread < _ALIKE] = np.inf  # a sign that is alike for all says nothing
    signs = np.column_stack([(rows - middle) / spread, np.ones(len(rows))])
    is_answered = np.array([1.0] * len(answerable) + [0.0] * len(others))
    counts = np.where(is_answered == 1, 0.5 / len(answerable), 0.5 / len(others)) * len(rows)
    weights = np.zeros(signs.shape[1])
    for _ in range(_ROUNDS):  # of Newton's method
        chance = _chance(signs @ weights)
        slope = signs.T @ (counts * (chance - is_answered)) + _RIDGE * weights
        curve = (signs * (counts * chance * (1 - chance))[:, None]).T @ signs + _RIDGE * np.eye(len(weights))
        weights = weights - np.linalg.solve(curve, slope)
    scaled = weights[:-1] / spread
    return tuple(round(float(weight), 3) for weight in (*scaled, weights[-1] - scaled @ middle))


def chance(weights: Sequence[float], signs: Signs) -> float:
    """The chance that a question with these signs is answered by what was found, 0..1."""
    return round(float(_chance(np.dot([*signs, 1.0], weights))), 4)


def _chance(odds: NDArray[np.float64] | np.float64) -> NDArray[np.float64]:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(odds, -30.0, 30.0))))
