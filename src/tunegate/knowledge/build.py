"""Documents become an index: whole or not there, the same bytes for the same documents, vectors computed once."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from tunegate.api.codec import from_json, to_json
from tunegate.api.errors import KnowledgeError, UsageError
from tunegate.files import new_folder
from tunegate.knowledge.chunks import SIZE, chunks
from tunegate.knowledge.contents import CHUNKS, HEAD, LEXICON, OFFSETS, VECTORS, Head
from tunegate.knowledge.documents import Chunk, Document, Progress
from tunegate.knowledge.embedders import Embedder
from tunegate.knowledge.index import Index, is_same
from tunegate.knowledge.journal import Journal, hash_of
from tunegate.knowledge.lexicon import Lexicon
from tunegate.knowledge.measure import Questions, calibration
from tunegate.knowledge.words import words


@dataclass(frozen=True)
class Built:
    """What became of a build. embedded: chunks whose vectors were computed; all others had them before."""

    head: Head
    documents: int
    embedded: int


def build(
    documents: Sequence[Document],
    into: Path,
    *,
    embedder: Embedder | None = None,
    previous: Path | None = None,
    journal: Path | None = None,
    questions: Questions | None = None,
    most: int = SIZE,
    progress: Progress | None = None,
) -> Built:
    """Write the index of `documents` to the folder `into`, in place of an older one, in one step at the end.

    previous: an index whose vectors are taken for the chunks that it has, where its embedder is the same. journal:
    the folder where vectors are kept until the index is whole, so that an interrupted build resumes. questions: what
    to calibrate on. most: the size of a chunk, as `chunks.size` counts. Raises KnowledgeError where there is
    nothing to find, or nothing to calibrate on.
    """
    every, tokens = _cut(documents, most, progress)
    texts = [chunk.whole for chunk in every]
    with new_folder(into) as folder:
        Lexicon.build(tokens).save(folder / LEXICON)
        lines = [msgspec.json.encode(chunk) + b"\n" for chunk in every]
        (folder / CHUNKS).write_bytes(b"".join(lines))
        np.save(folder / OFFSETS, np.cumsum([0, *map(len, lines)], dtype=np.int64), allow_pickle=False)
        kept = Journal(journal, embedder) if journal and embedder else None
        known = _known_vectors(previous, embedder) if previous and embedder else {}
        embedded = _save_vectors(folder / VECTORS, texts, embedder, known, kept, progress) if embedder else 0
        head = Head(chunks=len(every), size=most, embedder=embedder.ref if embedder else None)
        (folder / HEAD).write_bytes(to_json(head))
        if questions:
            head = msgspec.structs.replace(head, calibration=calibration(Index(folder, embedder), questions, progress))
            (folder / HEAD).write_bytes(to_json(head))
    if kept:
        kept.end()
    return Built(head, len(documents), embedded)


def _cut(documents: Sequence[Document], most: int, progress: Progress | None) -> tuple[list[Chunk], list[list[str]]]:
    """The chunks that say something, and the words of each. One without any could never be found, unnoticed."""
    every, tokens = [], []
    for done, document in enumerate(documents, 1):
        for chunk in chunks(document, most):
            if not any(map(str.isalnum, chunk.text)):
                continue
            every.append(chunk)
            tokens.append(words(chunk.whole))
            if not tokens[-1]:
                text = chunk.text[:40]
                raise KnowledgeError(f"{chunk.source}: no word of {text!r} can be looked up; write more of it.")
        if progress:
            progress("cut", done, len(documents))
    if not every:
        raise KnowledgeError("The documents hold no text; give others, or open them to see what they hold.")
    return every, tokens


def _save_vectors(
    path: Path,
    texts: Sequence[str],
    embedder: Embedder,
    known: dict[bytes, NDArray[np.float16]],
    journal: Journal | None,
    progress: Progress | None,
) -> int:
    """Write the vectors as 16-bit numbers, and say how many had to be computed."""
    known = {**known, **(journal.read() if journal else {})}
    vectors = np.zeros((len(texts), embedder.ref.dimension), dtype=np.float16)
    missing = []
    for position, text in enumerate(texts):
        vector = known.get(hash_of(text))
        if vector is None:
            missing.append(position)
        else:
            vectors[position] = vector
    for begin in range(0, len(missing), embedder.batch):
        batch = missing[begin : begin + embedder.batch]
        embedded = [texts[position] for position in batch]
        vectors[batch] = embedder.passages(embedded)
        if journal:
            journal.add(embedded, vectors[batch])
        if progress:
            progress("embed", begin + len(batch), len(missing))
    np.save(path, vectors, allow_pickle=False)
    return len(missing)


def _known_vectors(previous: Path, embedder: Embedder) -> dict[bytes, NDArray[np.float16]]:
    """The vectors of an earlier index by the hash of their text; none where it is damaged or of another embedder."""
    with contextlib.suppress(OSError, ValueError, UsageError):
        if from_json((previous / HEAD).read_bytes(), Head, HEAD).embedder != embedder.ref:
            return {}
        vectors = np.load(previous / VECTORS, mmap_mode="r", allow_pickle=False)
        texts = [msgspec.json.decode(line, type=Chunk).whole for line in (previous / CHUNKS).read_bytes().splitlines()]
        if len(texts) == len(vectors) and is_same(embedder, texts[0], vectors[0]):
            return {hash_of(text): vector for text, vector in zip(texts, vectors, strict=True)}
    return {}
