"""BM25 over the chunks of an index, by bm25s, and which chunks hold a word."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import bm25s
import numpy as np
from numpy.typing import NDArray

_ARRAYS = ("data", "indices", "indptr")


class Lexicon:
    """The words of chunks, and how much each says of each chunk. Its arrays are read from disk as they are needed."""

    def __init__(self, vocabulary: Sequence[str], arrays: dict[str, NDArray[np.generic]], chunks: int) -> None:
        self._numbers = {word: number for number, word in enumerate(vocabulary)}
        self._vocabulary = vocabulary
        self._arrays = arrays
        self._chunks = chunks
        self._engine = bm25s.BM25()
        self._engine.scores = {**arrays, "num_docs": chunks}
        self._engine.vocab_dict = self._numbers
        self._engine.nonoccurrence_array = None  # which only `index` and `load` set

    @classmethod
    def build(cls, texts: Iterable[Sequence[str]]) -> Lexicon:
        """Of the words of each chunk."""
        numbers: dict[str, int] = {}
        rows = [[numbers.setdefault(word, len(numbers)) for word in words] for words in texts]
        engine = bm25s.BM25()
        engine.index((rows, dict(numbers)), create_empty_token=False, show_progress=False)
        return cls(list(numbers), {name: engine.scores[name] for name in _ARRAYS}, len(rows))

    def save(self, folder: Path) -> None:
        """Write it to the folder `folder`: the same words, the same bytes."""
        folder.mkdir()
        (folder / "words.txt").write_text("\n".join(self._vocabulary), encoding="utf-8")
        for name, array in self._arrays.items():
            np.save(folder / f"{name}.npy", array, allow_pickle=False)

    @classmethod
    def open(cls, folder: Path, chunks: int) -> Lexicon:
        vocabulary = (folder / "words.txt").read_text(encoding="utf-8").split("\n")
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _ARRAYS}
        return cls(vocabulary, arrays, chunks)

    def scores(self, words: Sequence[str]) -> NDArray[np.float32]:
        """BM25's score of each chunk."""
        known = [self._numbers[word] for word in words if word in self._numbers]
        if not known:
            return np.zeros(self._chunks, dtype=np.float32)
        return np.asarray(self._engine.get_scores_from_ids(known), dtype=np.float32)

    def holders(self, word: str) -> NDArray[np.int64]:
        """The positions of the chunks that hold a word."""
        number = self._numbers.get(word)
        if number is None:
            return np.zeros(0, dtype=np.int64)
        begin, end = self._arrays["indptr"][number : number + 2].astype(np.int64)
        return np.asarray(self._arrays["indices"][begin:end], dtype=np.int64)

    def postings(self) -> Iterator[tuple[str, NDArray[np.int64], NDArray[np.float32]]]:
        """Each word, the positions of the chunks that hold it, and what it adds to the score of each."""
        indptr = np.asarray(self._arrays["indptr"], dtype=np.int64)
        for number, word in enumerate(self._vocabulary):
            part = slice(int(indptr[number]), int(indptr[number + 1]))
            positions = np.asarray(self._arrays["indices"][part], dtype=np.int64)
            yield word, positions, np.asarray(self._arrays["data"][part], dtype=np.float32)


def weight_of(count: int, chunks: int) -> float:
    """How much it says that a chunk holds a word which `count` of all hold: the rarer, the more."""
    return math.log(1.0 + (chunks - count + 0.5) / (count + 0.5))
