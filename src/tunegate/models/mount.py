"""A version as it lies in front of a server in a pod: put there by the storage initializer, checked by the server.

The folder holds the version's files and its manifest.json, under base/ the same of the model that an adapter needs,
and under knowledge/ the index that its release names; without weights, what else the release is made of. It may be a
mount, so it is filled from within: files arrive in a hidden folder of it and appear, the manifest last, as links. Both
sides hold every byte against the manifest, so the server trusts nothing in between. Imports no torch.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from tunegate.api.codec import from_json, from_yaml, to_json
from tunegate.api.digest import Digest
from tunegate.api.errors import DigestError, ModelError, StoreError
from tunegate.api.pinned import Pinned, storage_uri
from tunegate.api.versions import KNOWLEDGE, MANIFEST, RELEASE, File, Manifest, Release
from tunegate.files import digest_of_file, disk_errors_as, in_threads, replace_file
from tunegate.models.materialize import ADAPTERS, check_folder, on_base, required_base
from tunegate.models.prompt_tuning import ADAPTER_CONFIG, kind_in, refuse_prefix
from tunegate.store import Progress, Store
from tunegate.store.artifacts import digest_of_folder
from tunegate.store.fetching import RESUME
from tunegate.store.release import fetch_index, read_release
from tunegate.store.versions import check_manifest

BASE = "base"
_ARRIVING = ".arriving"


def deliver(store: Store, wanted: Pinned, into: Path, progress: Progress | None = None) -> Manifest:
    """Fill `into` with exactly the version that is wanted, with its base if it is an adapter, and with its index.

    Of one that is wanted without weights only what its release is made of arrives. Files that are there and right are
    kept, so an attempt that was ended resumes. Raises DigestError when the store has other bytes under that name,
    NotFoundError, or StoreError when the store or the disk fails.
    """
    manifest = store.manifest(wanted.name)
    chosen = manifest
    if not wanted.weights:
        release = read_release(store, store.version_of(manifest))
        chosen = msgspec.structs.replace(manifest, files=_without_weights(manifest, release))
    fetched = store.fetch(chosen, into / _ARRIVING / "version", digest=wanted.digest, progress=progress)
    if wanted.weights and manifest.format in ADAPTERS:
        base = required_base(manifest)
        deliver(store, Pinned(store.resolve(base.uri).name, base.digest), into / BASE, progress)
    index = fetch_index(store, _release_in(fetched, manifest), into / _ARRIVING / KNOWLEDGE, progress)
    with disk_errors_as(StoreError, into, "use another folder."):
        for folder, target in ((fetched, into), *([(index, into / KNOWLEDGE)] if index else [])):
            _link(folder, target)
        replace_file(into / MANIFEST, to_json(manifest))  # last: where it lies, all else does
    return manifest


def read_mounted(folder: Path, *, weights: bool = True) -> tuple[Manifest, Release]:
    """What lies in `folder`, after every byte was held against its manifest. weights: whether they have to be there.

    Raises DigestError naming the file that differs, ModelError when it is no such folder.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise ModelError(
            f"{folder} has no {MANIFEST}, so it was not filled completely; run: tunegate initialize URI {folder}"
        )
    manifest = from_json(path.read_bytes(), Manifest, str(path))
    check_manifest(manifest, manifest.name)
    files = manifest.files if weights else _without_weights(manifest, _release_in(folder, manifest))
    in_threads(lambda file: _check(folder, file, manifest), (f for f in files if not f.path.startswith(RESUME)))
    if weights and manifest.format in ADAPTERS:
        base, (found, _) = required_base(manifest), read_mounted(folder / BASE)
        if found.digest != base.digest:
            where = f"{folder / BASE} holds {found.digest}, but the adapter needs {base.digest}"
            raise DigestError(f"{where}; fetch it again: tunegate initialize {storage_uri(manifest)} {folder}")
    release = _release_in(folder, manifest)
    if release.knowledge and digest_of_folder(folder / KNOWLEDGE) != release.knowledge.digest:
        named = f"{folder / KNOWLEDGE} is not the index {release.knowledge.index} that {manifest.name} needs"
        raise DigestError(f"{named}; fetch it again: tunegate initialize {storage_uri(manifest)} {folder}")
    return manifest, release


def servable(folder: Path, manifest: Manifest, cache: Path, *, whole: bool = True, share_base: bool = False) -> Path:
    """What an engine can load: `folder`, or for an adapter the result of merging it, which goes to `cache`.

    `folder` was read by `read_mounted`. `whole` and `share_base` are as in `materialize`. Raises ModelError when the
    result can't be used for chat.
    """
    if manifest.format in ADAPTERS:
        mounted = folder
        beneath = from_json((mounted / BASE / MANIFEST).read_bytes(), Manifest, str(mounted / BASE / MANIFEST))
        place = cache / Digest.parse(manifest.digest).hex
        if whole:
            refuse_prefix(kind_in(mounted, manifest.name), manifest.name)
        folder = on_base(mounted, place, lambda: servable(mounted / BASE, beneath, cache), share_base=share_base)
    check_folder(folder)
    return folder


def _release_in(folder: Path, manifest: Manifest) -> Release:
    release = folder / RELEASE
    if not release.is_file():
        raise ModelError(f"{manifest.name} has no {RELEASE}; publish it with one, under another name.")
    return from_yaml(release.read_bytes(), Release, str(release))


def _without_weights(manifest: Manifest, release: Release) -> tuple[File, ...]:
    """The files of a version that its release is made of, and the one that says what kind of adapter it is."""
    prompts = (f"{release.prompts.path}/",) if release.prompts else ()
    return tuple(
        file for file in manifest.files if file.path in (RELEASE, ADAPTER_CONFIG) or file.path.startswith(prompts)
    )


def _link(folder: Path, into: Path) -> None:
    """Let the files of `folder` appear below `into`, too."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        target = into / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        os.link(path, target)


def _check(folder: Path, file: File, manifest: Manifest) -> None:
    path = folder / file.path
    if not path.is_file() or path.stat().st_size != file.size or digest_of_file(path) != file.sha256:
        where = f"{path} is not the file that {manifest.name} ({manifest.digest}) has"
        raise DigestError(f"{where}; fetch it again: tunegate initialize {storage_uri(manifest)} {folder}")
