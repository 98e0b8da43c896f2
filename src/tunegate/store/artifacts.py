"""Folders in the store that are no versions: named by what they hold, complete when their manifest is there.

The folder of an artifact is called by its digest, so whoever publishes it writes the same bytes: nobody has to claim
a name, and an interrupted publishing is just done again. What a name stands for now is a small document beside them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from tunegate.api.codec import Document, from_json, to_json
from tunegate.api.digest import Digest, beginning
from tunegate.api.errors import DigestError, NotFoundError, UsageError
from tunegate.api.versions import MANIFEST, File, digest_of
from tunegate.store import fetching
from tunegate.store.bucket import Bucket
from tunegate.store.client import explain_store_errors
from tunegate.store.transfer import ByteCounter, Progress, SourceFile, Transfers

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?")


class Artifact(Document, frozen=True, kw_only=True):
    """What the store holds under a digest. name: its folder in the store."""

    schema: Literal["tunegate.io/artifact/v1"] = "tunegate.io/artifact/v1"
    name: str
    digest: str
    files: tuple[File, ...]

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)


class _Latest(Document, frozen=True, kw_only=True):
    """The artifact that a name stands for."""

    schema: Literal["tunegate.io/artifact-name/v1"] = "tunegate.io/artifact-name/v1"
    digest: str


class Artifacts:
    """The artifacts of one kind in a bucket, below `.KIND/NAME/`, where no version is looked for."""

    def __init__(self, bucket: Bucket, kind: str) -> None:
        self._bucket = bucket
        self._kind = kind

    def publish(self, folder: Path, name: str, progress: Progress | None = None) -> Artifact:
        """Put `folder` into the store and let `name` stand for it. Raises UsageError for a name that can't be one."""
        if not _NAME.fullmatch(name):
            raise UsageError(f"{name!r} can't be a name; write lower-case letters, digits, '-' and '.'.")
        sources = files_of(folder)
        files = tuple(map(_listed, sources))
        digest = digest_of(files)
        artifact = Artifact(name=f".{self._kind}/{name}/{Digest.parse(digest).pinned}", digest=digest, files=files)
        manifest = f"{artifact.name}/{MANIFEST}"
        if self._bucket.get(manifest) is None:
            counter = ByteCounter(artifact.size, progress)

            def send(source: SourceFile) -> None:
                transfers.upload(source, f"{artifact.name}/{source.path}")

            with explain_store_errors(self._bucket.location.uri), Transfers(self._bucket, counter) as transfers:
                transfers.for_each(send, sources)
            self._bucket.put(manifest, to_json(artifact))
        self._bucket.put(self._latest(name), to_json(_Latest(digest=digest)))
        return artifact

    def find(self, name: str) -> Artifact:
        """The artifact that `name` stands for, or NAME@DIGEST, of which 8 digits are enough. Raises NotFoundError."""
        name, at, wanted = name.partition("@")
        if at:
            digits = beginning(wanted)
            if digits is None:
                raise UsageError(f"{wanted!r} is no digest; give at least 8 of its hex digits.")
            found = [key for key in self._manifests(name) if f"/sha256-{digits}" in key]
            if len(found) > 1:
                raise UsageError(f"digest {digits} fits several artifacts of {name}; give more digits.")
            key = found[0] if found else ""
        else:
            latest = self._bucket.get(self._latest(name))
            digest = latest and from_json(latest, _Latest, self._latest(name)).digest
            key = f".{self._kind}/{name}/{Digest.parse(digest).pinned}/{MANIFEST}" if digest else ""
        body = self._bucket.get(key) if key else None
        if body is None:
            known = ", ".join(self._bucket.folders(f".{self._kind}/"))
            raise NotFoundError(
                f"There is no {self._kind} {name}{at}{wanted} in {self._bucket.location.uri}; "
                + (f"there are: {known}." if known else "there is none.")
            )
        artifact = from_json(body, Artifact, key)
        if digest_of(artifact.files) != artifact.digest or f"{artifact.name}/{MANIFEST}" != key:
            raise DigestError(f"{key} disagrees with itself; delete it from the store, and publish again.")
        return artifact

    def fetch(self, artifact: Artifact, into: Path, progress: Progress | None = None) -> Path:
        """Bring its files to the folder `into`: complete and verified, or not there at all."""
        with _built_again(artifact):
            return fetching.fetch(self._bucket, artifact, into, include_resume=True, progress=progress)

    def verify(self, artifact: Artifact, progress: Progress | None = None) -> None:
        """Read every byte of it again. Raises DigestError naming the file that differs."""
        with _built_again(artifact):
            fetching.verify(self._bucket, artifact, progress)

    def _latest(self, name: str) -> str:
        return f".{self._kind}/{name}/latest.json"

    def _manifests(self, name: str) -> list[str]:
        keys = [entry.key for entry in self._bucket.entries(f".{self._kind}/{name}/")]
        return [key for key in keys if key.endswith(f"/{MANIFEST}")]


@contextmanager
def _built_again(artifact: Artifact) -> Iterator[None]:
    """What is damaged is named with its remedy. While the manifest is there, publishing again would send nothing."""
    try:
        yield
    except DigestError as error:
        damaged = str(error).partition(";")[0]
        message = f"{damaged}; delete {artifact.name}/ from the store, and build the index again."
        raise DigestError(message) from None


def files_of(folder: Path) -> list[SourceFile]:
    """The files of a folder, by path."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [SourceFile(path.relative_to(folder).as_posix(), path.stat().st_size, path) for path in paths]


def digest_of_folder(folder: Path) -> str:
    """The digest that `folder` has as an artifact."""
    return digest_of(map(_listed, files_of(folder)))


def _listed(source: SourceFile) -> File:
    hashed = source.hashed()
    return File(path=source.path, size=source.size, sha256=hashed.sha256, states=hashed.states)
