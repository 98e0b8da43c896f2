"""A folder becomes a version: files first, the manifest last, nothing moved that the store already holds.

It knows the layout of a version in the store; finding and reading versions is in versions.py.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

import msgspec

from tunegate.api.codec import to_json, to_yaml
from tunegate.api.errors import StoreError, UsageError
from tunegate.api.versions import MANIFEST, PROMPTS, RELEASE, File, Manifest, Producer, Release, digest_of
from tunegate.store.bucket import Bucket
from tunegate.store.claims import Claim, claimed, shared
from tunegate.store.client import explain_store_errors
from tunegate.store.fetching import RESUME
from tunegate.store.sha256 import Hashed
from tunegate.store.transfer import ByteCounter, Finished, Held, Progress, Sent, SourceFile, Transfers

_LOG = logging.getLogger(__name__)


def collect(folder: Path, release: Release, prompts: Path | None = None) -> tuple[SourceFile, ...]:
    """The files of a version in the making: all of `folder`, the release, and what `prompts` holds as its prompts.

    A `release.yaml` or `manifest.json` at the top of the folder is from an earlier version and left out. Raises
    UsageError when there is nothing to publish or something that isn't a file.
    """
    sources = [source for source in _files_in(folder) if source.path not in (MANIFEST, RELEASE)]
    if not sources:
        raise UsageError(f"{folder} holds no files; name the folder that holds the model's files.")
    return complete(sources, release, prompts)


def carried(origin: Manifest, release: Release, prompts: Path | None) -> tuple[SourceFile, ...]:
    """The files of a version in the making that has the weights of `origin`, and its prompts unless there are others.

    What resumes its training is left behind.
    """
    left = (RESUME,) if release.prompts else (RESUME, f"{PROMPTS}/")
    sources = [
        SourceFile(file.path, file.size, Held(origin.name, Hashed(file.sha256, file.states)))
        for file in origin.files
        if file.path != RELEASE and not file.path.startswith(left)
    ]
    return complete(sources, release, prompts)


def complete(sources: Iterable[SourceFile], release: Release, prompts: Path | None) -> tuple[SourceFile, ...]:
    """`sources` with the release, and with the files of the folder `prompts` where it names them; by path."""
    text = to_yaml(release)
    added = [SourceFile(RELEASE, len(text), text)]
    if prompts is not None:
        assert release.prompts is not None
        sources = [source for source in sources if not source.path.startswith(f"{release.prompts.path}/")]
        added += [replace(source, path=f"{release.prompts.path}/{source.path}") for source in _files_in(prompts)]
    return tuple(sorted([*sources, *added], key=lambda source: source.path))


def combined(
    sources: Iterable[SourceFile], sent: Iterable[File], instead: Mapping[str, bytes]
) -> tuple[SourceFile, ...]:
    """`sources` with what others have `sent`, and with other bytes for some paths; by path."""
    files = {source.path: source for source in sources}
    files |= {file.path: SourceFile(file.path, file.size, Sent(Hashed(file.sha256, file.states))) for file in sent}
    files |= {path: SourceFile(path, len(body), body) for path, body in instead.items()}
    return tuple(files[path] for path in sorted(files))


def _files_in(folder: Path) -> list[SourceFile]:
    """All files, but for lock files and what git and downloads keep beside a model, of which a warning tells."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; name the folder that holds the model's files.")
    sources, left_out = [], []
    for root, folders, names in os.walk(folder):
        left_out += [Path(root, name) for name in [*folders, *names] if _is_left_out(name)]
        folders[:] = [name for name in folders if not _is_left_out(name)]
        for path in (Path(root, name) for name in [*folders, *names] if not _is_left_out(name)):
            if path.is_dir() and path.is_symlink():
                raise UsageError(f"{path} is a link to a folder; replace it by the folder itself.")
            if path.is_dir():
                continue
            if not path.is_file():
                raise UsageError(f"{path} is not a regular file; remove it from the folder.")
            if not _can_travel(path.name):
                raise UsageError(f"{str(path)!r} has a name that not every store can hold; rename it.")
            sources.append(SourceFile(path.relative_to(folder).as_posix(), path.stat().st_size, path))
    if left_out:
        names = sorted(path.relative_to(folder).as_posix() for path in left_out)
        _LOG.warning("left out of the version: %s", ", ".join(names))
    return sources


def _is_left_out(name: str) -> bool:
    """Whether it is no part of a model: a clone's `.git` has all weights a second time."""
    return name in {".git", ".cache", "__pycache__", ".ipynb_checkpoints", ".DS_Store"} or name.endswith(".lock")


def _can_travel(name: str) -> bool:
    """Whether every store and system has the same name for it: not with a backslash or control characters."""
    return "\\" not in name and name.isprintable() and len(name.encode(errors="replace")) <= 255


def publish(
    bucket: Bucket,
    name: str,
    sources: tuple[SourceFile, ...],
    *,
    release: Release,
    producer: Producer,
    find: Callable[[], Manifest | None],
    siblings: Callable[[], Iterable[Manifest]],
    progress: Progress | None,
) -> Manifest:
    """Publish `sources` as `name`; `find` reads the manifest under that name, `siblings` those with files to share.

    Raises StoreError when the name belongs to other bytes, when a file changes meanwhile, or the store fails.
    """
    counter = ByteCounter(sum(source.size for source in sources), progress)
    if existing := find():
        return _require_same(existing, sources, release, counter)
    with claimed(bucket, name) as claim:
        if existing := find():
            return _require_same(existing, sources, release, counter)
        with _errors_explained(bucket), Transfers(bucket, counter) as transfers:
            transfers.abort_uploads(f"{name}/")
            files = _store(bucket, name, sources, claim, transfers, counter, list(siblings()))
        manifest = Manifest(
            model=name.split("/")[0],
            name=name,
            format=release.format,
            digest=digest_of(files),
            files=tuple(files),
            base=release.base,
            producer=producer,
            created=datetime.now(UTC),
        )
        claim.confirm()
        if not bucket.put_new(f"{name}/{MANIFEST}", to_json(manifest)):  # by one who doesn't know of claims
            raise StoreError(f"{name} was published by someone else meanwhile; choose another name.")
    return manifest


def send_share(
    bucket: Bucket, name: str, sources: tuple[SourceFile, ...], siblings: Callable[[], Iterable[Manifest]]
) -> tuple[File, ...] | None:
    """Bring some of the files of a version in the making to the store, for who publishes all of them as `name`.

    Several may do so at once, each with files of its own; nothing is sent once somebody publishes: None says so. Raises
    StoreError.
    """
    if bucket.get(f"{name}/{MANIFEST}") is not None:
        return None
    counter = ByteCounter(0, None)
    with shared(bucket, name) as claim, _errors_explained(bucket), Transfers(bucket, counter) as transfers:
        return tuple(_store(bucket, name, sources, claim, transfers, counter, list(siblings()))) if claim else None


def _store(
    bucket: Bucket,
    name: str,
    sources: tuple[SourceFile, ...],
    claim: Claim,
    transfers: Transfers,
    counter: ByteCounter,
    siblings: list[Manifest],
) -> list[File]:
    """Bring every source into the store: kept from an earlier attempt, copied from a sibling, or sent."""
    there = {entry.key: entry for entry in bucket.entries(f"{name}/")}
    kept = {
        path: done
        for path, done in claim.finished.items()
        if (entry := there.get(f"{name}/{path}")) and (entry.size, entry.etag) == (done.size, done.etag)
    }
    sizes = {file.size for manifest in siblings for file in manifest.files} | {done.size for done in kept.values()}
    untouched = cache(partial(_untouched, bucket))
    files: dict[str, File] = {}

    def origin(source: SourceFile, sha256: str) -> str:
        """The key of the same bytes in another version; empty where there are none."""
        same = [(m.name, f.path) for m in siblings for f in m.files if (f.size, f.sha256) == (source.size, sha256)]
        return next((f"{of}/{path}" for of, path in same if (path, source.size) in untouched(of)), "")

    def place(source: SourceFile) -> None:
        key = f"{name}/{source.path}"
        claim.require()
        # Reading a file twice is cheaper than sending it, but only worth it where its size is known in the store.
        hashed = source.hashed() if source.size in sizes else None
        done = kept.get(source.path)
        if done is not None and hashed is not None and done.sha256 == hashed.sha256:
            counter.add(source.size)
        elif hashed is not None and (there_already := origin(source, hashed.sha256)):
            etag = transfers.copy(there_already, key, source.size)
            done = Finished(size=source.size, sha256=hashed.sha256, etag=etag)
            counter.add(source.size)
        else:
            done, hashed = transfers.upload(source, key)
        claim.note(source.path, done)
        files[source.path] = File(path=source.path, size=done.size, sha256=done.sha256, states=hashed.states)

    transfers.for_each(place, sorted(sources, key=lambda source: -source.size))
    if not claim.is_share:  # an interrupted attempt had other files; a version's folder holds the version
        bucket.tidy(*(there.keys() - {f"{name}/{path}" for path in files}))
    return [files[path] for path in sorted(files)]


def _untouched(bucket: Bucket, name: str) -> frozenset[tuple[str, int]]:
    """Path and size of the files that nobody has written since their version was complete; others may be damaged."""
    sizes, ages = {entry.key: entry.size for entry in bucket.entries(f"{name}/")}, bucket.ages(f"{name}/")
    complete = ages.get(f"{name}/{MANIFEST}", 0.0)
    return frozenset(
        (key[len(name) + 1 :], sizes[key]) for key, age in ages.items() if key in sizes and age >= complete
    )


def _require_same(
    existing: Manifest, sources: tuple[SourceFile, ...], release: Release, counter: ByteCounter
) -> Manifest:
    """The version that is already there, if it is made of these bytes; sizes settle most of it without reading."""
    taken = (
        f"{existing.name} is taken by other bytes ({existing.digest}); a version never changes: choose another name."
    )
    # tunegate 0.1 wrote no schema into a release; what it published then is the same version still.
    written: dict[str, Any] = msgspec.yaml.decode(to_yaml(release))
    text = msgspec.yaml.encode({name: value for name, value in written.items() if name != "schema"})
    older = SourceFile(RELEASE, len(text), text)
    if any(file.path == RELEASE and file.sha256 == older.hashed().sha256 for file in existing.files):
        sources = tuple(older if source.path == RELEASE else source for source in sources)
    if {file.path: file.size for file in existing.files} != {source.path: source.size for source in sources}:
        raise StoreError(taken)
    expected = {file.path: file.sha256 for file in existing.files}
    for source in sources:
        if source.hashed().sha256 != expected[source.path]:
            raise StoreError(taken)
        counter.add(source.size)
    return existing


@contextmanager
def _errors_explained(bucket: Bucket) -> Iterator[None]:
    """Of the store, and of the files that are read."""
    try:
        with explain_store_errors(bucket.location.uri):
            yield
    except OSError as error:
        raise StoreError(
            f"{error.filename} can't be read: {error.strerror}; make it readable and publish again."
        ) from error
