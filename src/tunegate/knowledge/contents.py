"""The files of an index, read as they are needed: its head, its chunks, its words and its vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from tunegate.api.codec import Document, Resource, from_json
from tunegate.api.errors import KnowledgeError
from tunegate.knowledge.documents import Chunk
from tunegate.knowledge.embedders import EmbedderRef
from tunegate.knowledge.lexicon import Lexicon

HEAD, CHUNKS, OFFSETS, VECTORS, LEXICON = "index.json", "chunks.jsonl", "offsets.npy", "vectors.npy", "words"


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


class Contents:
    """What is in the folder of an index."""

    def __init__(self, folder: Path) -> None:
        """Open `folder`. Raises KnowledgeError for one that is no whole index."""
        try:
            self.head = from_json((folder / HEAD).read_bytes(), Head, f"{folder.name}/{HEAD}")
            self.lexicon = Lexicon.open(folder / LEXICON, self.head.chunks)
            self._offsets = np.load(folder / OFFSETS, mmap_mode="r", allow_pickle=False)
            self._lines: NDArray[np.uint8] = np.memmap(folder / CHUNKS, dtype=np.uint8, mode="r")
            dimension, self.vectors = 0, np.zeros((self.head.chunks, 0), dtype=np.float16)
            if self.head.embedder:
                dimension = self.head.embedder.dimension
                self.vectors = np.load(folder / VECTORS, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise KnowledgeError(
                f"{folder} is no index of tunegate ({error}); build one: tunegate knowledge build."
            ) from None
        shapes = (self._offsets.shape, self.vectors.shape)
        if shapes != ((self.head.chunks + 1,), (self.head.chunks, dimension)) or self._offsets[-1] != len(self._lines):
            raise KnowledgeError(f"{folder} is not whole; fetch or build it again.")

    def chunk(self, position: int) -> Chunk:
        """The chunk at a position, counted from 0."""
        begin, end = int(self._offsets[position]), int(self._offsets[position + 1])
        return msgspec.json.decode(self._lines[begin:end].tobytes(), type=Chunk)
