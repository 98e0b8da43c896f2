"""Few-shot pairs: which of them are shown, within how many tokens."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

from tunegate.prompts.template import Examples, Pair


def choose(examples: Examples, text: str, count: Callable[[str], int] | None) -> list[Pair]:
    """The pairs most similar to `text`, the most similar last, where a model heeds it most; without `by`, in order.

    A pair that no longer fits into `examples.tokens` makes way for the next one. count: the tokens of a text; it is
    needed where there is such a budget.
    """
    asked = [pair.user for pair in examples.pairs]
    likeness = similarities(asked, text) if examples.by else [0.0] * len(asked)
    chosen: list[int] = []
    left = examples.tokens if examples.tokens is not None else math.inf
    for i in sorted(range(len(asked)), key=lambda i: -likeness[i]):
        pair = examples.pairs[i]
        cost = count(pair.user) + count(pair.assistant) if count and examples.tokens is not None else 0
        if len(chosen) < examples.most and cost <= left:
            chosen.append(i)
            left -= cost
    ordered = reversed(chosen) if examples.by else chosen
    return [examples.pairs[i] for i in ordered]


def similarities(texts: Sequence[str], to: str) -> list[float]:
    """How similar each text is to another, 0..1: the cosine of their runs of 1 to 3 characters.

    Runs that few of the texts have weigh more. Characters, because words can't be told apart in Chinese without a
    dictionary.
    """
    counts = [_runs(text) for text in texts]
    spread = Counter(run for runs in counts for run in runs)
    weights = {run: math.log((1 + len(texts)) / (1 + number)) + 1 for run, number in spread.items()}

    def weighted(runs: Counter[str]) -> dict[str, float]:
        return {run: number * weights[run] for run, number in runs.items() if run in weights}

    def length(vector: dict[str, float]) -> float:
        return math.sqrt(sum(value * value for value in vector.values()))

    asked = weighted(_runs(to))
    vectors = [weighted(runs) for runs in counts]
    return [
        sum(value * asked.get(run, 0.0) for run, value in vector.items()) / (length(vector) * length(asked) or 1.0)
        for vector in vectors
    ]


def _runs(text: str) -> Counter[str]:
    plain = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return Counter(plain[i : i + size] for size in (1, 2, 3) for i in range(len(plain) - size + 1))
