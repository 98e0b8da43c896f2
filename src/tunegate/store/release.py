"""What a version says about serving it, read from the store and held against its digest: its release, and the prompts
and the index that this names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tunegate.api.codec import from_yaml
from tunegate.api.digest import Digest
from tunegate.api.errors import DigestError, ModelError
from tunegate.api.versions import KNOWLEDGE, RELEASE, Knowledge, ModelVersion, Release

if TYPE_CHECKING:
    from tunegate.store import Store
    from tunegate.store.transfer import Progress


def read_release(store: Store, version: ModelVersion) -> Release:
    """The release of `version`. Raises as `read_file`, and UsageError when it can't be read."""
    return from_yaml(read_file(store, version, RELEASE), Release, f"{version.name}/{RELEASE}")


def read_file(store: Store, version: ModelVersion, path: str) -> bytes:
    """One small file of `version`.

    Raises ModelError when the version has none, DigestError when its bytes aren't those the digest covers.
    """
    listed = next((file for file in store.manifest(version.digest).files if file.path == path), None)
    body = store.get(f"{version.name}/{path}")
    if listed is None or body is None:
        raise ModelError(f"{version.name} has no {path}; publish it with one, under another name.")
    if Digest.of_bytes(body).hex != listed.sha256:
        damaged = f"{version.name}/{path} in the store is not what the manifest says"
        raise DigestError(f"{damaged}; publish the version again under another name.")
    return body


def fetch_prompts(store: Store, version: ModelVersion, release: Release, cache: Path) -> Path | None:
    """The folder of the prompts of `version`, verified, without its weights; None where it has none.

    Raises ModelError when it lacks what its release names, DigestError naming a file that differs.
    """
    if release.prompts is None:
        return None
    manifest, path = store.manifest(version.digest), release.prompts.path
    files = tuple(file for file in manifest.files if file.path.startswith(f"{path}/"))
    if not files:
        lacks = f"{version.name} has no {path}/, which its {RELEASE} names"
        raise ModelError(f"{lacks}; publish it with that folder, under another name.")
    into = cache / path / Digest.parse(version.digest).hex
    return store.fetch(msgspec.structs.replace(manifest, files=files), into) / path


def fetch_index(store: Store, release: Release, into: Path, progress: Progress | None = None) -> Path | None:
    """`into`, where the index that the release names is then, verified; None where it names none.

    Raises NotFoundError where the store has no such index, DigestError naming it where it is damaged.
    """
    if release.knowledge is None:
        return None
    artifacts = store.artifacts(KNOWLEDGE)
    return artifacts.fetch(artifacts.find(release.knowledge.index), into, progress)


def cached_index(knowledge: Knowledge, cache: Path) -> Path:
    """Where an index lies in a cache: what has the same digest is brought once."""
    return cache / KNOWLEDGE / Digest.parse(knowledge.digest).hex
