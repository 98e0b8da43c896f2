"""Indexes in the store: published under a name, fetched once, opened by name or folder."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from tunegate.api.digest import Digest
from tunegate.api.errors import NotFoundError, UsageError
from tunegate.knowledge.contents import HEAD
from tunegate.store import Progress, Store
from tunegate.store.artifacts import Artifact, digest_of_folder

KIND = "knowledge"


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
