"""The vectors of a build that is not done: one that was interrupted resumes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from tunegate.knowledge.embedders import Embedder

_HASH = 32  # bytes, of the text that a vector is of
_PROBE = "?"


def hash_of(text: str) -> bytes:
    """What a text is known by."""
    return hashlib.sha256(text.encode()).digest()


class Journal:
    """A file of vectors of one embedder, to which each batch is added in one write."""

    def __init__(self, folder: Path, embedder: Embedder) -> None:
        """The file in `folder` that is of this embedder: of what it is called, and of what it makes of a text."""
        probe = embedder.passages([_PROBE]).astype(np.float16).tobytes()
        name = hashlib.sha256(msgspec.json.encode(embedder.ref) + probe).hexdigest()[:32]
        self._path = folder / f"{name}.vectors"
        self._dimension = embedder.ref.dimension

    def read(self) -> dict[bytes, NDArray[np.float16]]:
        """The vectors by the hash of their text. What a killed process wrote half is left out, and cut off."""
        size = _HASH + 2 * self._dimension
        body = self._path.read_bytes() if self._path.is_file() else b""
        whole = len(body) - len(body) % size
        if whole < len(body):
            with self._path.open("r+b") as file:
                file.truncate(whole)
        return {
            body[begin : begin + _HASH]: np.frombuffer(body, np.float16, self._dimension, begin + _HASH)
            for begin in range(0, whole, size)
        }

    def add(self, texts: Sequence[str], vectors: NDArray[np.float16]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        rows = zip(texts, vectors, strict=True)
        with self._path.open("ab") as file:
            file.write(b"".join(hash_of(text) + vector.tobytes() for text, vector in rows))

    def end(self) -> None:
        """The index has them all now."""
        self._path.unlink(missing_ok=True)
