"""A version becomes a folder: complete and verified, or not there at all.

Files are collected in a folder beside the wanted one, which takes its place in one step at the end. What an
interrupted fetch left there is hashed and kept if it is right.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from tunegate.api.errors import DigestError, StoreError, UsageError
from tunegate.api.versions import File
from tunegate.files import disk_errors_as, partial_folder, put_in_place
from tunegate.store.bucket import Bucket
from tunegate.store.client import explain_store_errors
from tunegate.store.sha256 import Hashed, Segment
from tunegate.store.transfer import ByteCounter, Download, Progress, SourceFile, Transfers

RESUME = "resume/"
"""The folder of a version that only a training run that resumes needs."""
_READS = 2  # so that what was damaged on the way is not told of as damaged in the store
DISK_REMEDY = "make room or choose another folder, then fetch again: what is complete is kept."


class Listed(Protocol):
    """What is fetched: files below a name in the store, as a manifest lists them."""

    @property
    def name(self) -> str: ...

    @property
    def files(self) -> tuple[File, ...]: ...

    @property
    def size(self) -> int: ...


def fetch(bucket: Bucket, manifest: Listed, into: Path, *, include_resume: bool, progress: Progress | None) -> Path:
    """Bring the version's files to `into`. Raises DigestError naming a file that differs, UsageError when `into`
    holds files of something else."""
    files = [file for file in manifest.files if include_resume or not file.path.startswith(RESUME)]
    counter = ByteCounter(sum(file.size for file in files), progress)
    into = into.absolute()
    with disk_errors_as(StoreError, into, DISK_REMEDY), partial_folder(into) as partial:
        if into.exists() and not into.is_dir():
            raise UsageError(f"{into} is a file; name a folder for {manifest.name}.")
        if foreign := sorted(_files_below(into) - {file.path for file in manifest.files}):
            raise UsageError(f"{into} holds {foreign[0]}, which is not of {manifest.name}; name a new or empty folder.")
        if into.is_dir() and all(_is_right(into, file) for file in files):
            counter.add(sum(file.size for file in files))
            return into
        missing = [file for file in files if not _take_over(into, partial, file)]
        counter.add(sum(file.size for file in files) - sum(file.size for file in missing))
        for stray in _files_below(partial) - {file.path for file in files}:
            (partial / stray).unlink()
        _download(bucket, manifest, missing, partial, counter)
        put_in_place(partial, into)
    return into


def verify(bucket: Bucket, manifest: Listed, progress: Progress | None) -> None:
    """Read every byte of the version from the store. Raises DigestError naming the file that differs."""
    _download(bucket, manifest, manifest.files, None, ByteCounter(manifest.size, progress))


def _download(
    bucket: Bucket, manifest: Listed, files: Iterable[File], folder: Path | None, counter: ByteCounter
) -> None:
    sizes = {entry.key: entry.size for entry in bucket.entries(f"{manifest.name}/")}

    def get(part: tuple[File, Segment | None]) -> None:
        file, segment = part
        key = f"{manifest.name}/{file.path}"
        target = folder / file.path if folder else None
        where = f"{bucket.location.uri}/{key}"
        if key not in sizes:
            raise DigestError(f"{where} is missing from the store; publish the version again under another name.")
        for _ in range(_READS if sizes[key] == file.size else 0):
            if transfers.download(Download(key, file.size, target, segment)) == (
                segment.after if segment else file.sha256
            ):
                return
            counter.add(segment.start - segment.end if segment else -file.size)
        if target:
            target.unlink(missing_ok=True)
        raise DigestError(f"{where} differs from its manifest; publish the version again under another name.")

    parts: list[tuple[File, Segment | None]] = []
    for file in sorted(files, key=lambda file: -file.size):
        segments = Hashed(file.sha256, file.states).segments(file.size)
        parts += [(file, segment) for segment in segments or (None,)]
    with explain_store_errors(bucket.location.uri), Transfers(bucket, counter) as transfers:
        transfers.for_each(get, parts)


def _is_right(folder: Path, file: File) -> bool:
    path = folder / file.path
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    return SourceFile(file.path, file.size, path).hashed().sha256 == file.sha256


def _take_over(into: Path, partial: Path, file: File) -> bool:
    """Whether the partial folder has the file now, from an earlier attempt or from `into`."""
    if _is_right(partial, file):
        return True
    (partial / file.path).unlink(missing_ok=True)
    if not _is_right(into, file):
        return False
    (partial / file.path).parent.mkdir(parents=True, exist_ok=True)
    os.link(into / file.path, partial / file.path)
    return True


def _files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
