"""What a version says about serving it, read from the store and held against its digest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunegate.api.codec import from_yaml
from tunegate.api.digest import Digest
from tunegate.api.errors import DigestError, ModelError
from tunegate.api.versions import RELEASE, ModelVersion, Release

if TYPE_CHECKING:
    from tunegate.store import Store


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
