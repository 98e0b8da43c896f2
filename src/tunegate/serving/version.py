"""The version that a server serves: from the store, or from a folder that `tunegate initialize` left."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tunegate.api.versions import ModelVersion, Release
from tunegate.files import default_cache
from tunegate.models import materialize
from tunegate.models.mount import read_mounted, servable
from tunegate.models.prompt_tuning import ADAPTER_CONFIG, kind_of, refuse_prefix
from tunegate.store import Store
from tunegate.store.release import read_release


@dataclass(frozen=True)
class ServedVersion:
    """What is served. `folder`: its verified weights, or None where the engine has loaded them itself."""

    version: ModelVersion
    release: Release
    folder: Path | None


def from_store(store: Store, name: str, *, whole: bool, fetch: bool) -> ServedVersion:
    """Find the version by name, URI or digest. `whole`: the engine takes whole models only. `fetch`: it is ours."""
    found = store.resolve(name)
    if whole and found.format == "prompt-adapter":
        refuse_prefix(kind_of(store.get(f"{found.name}/{ADAPTER_CONFIG}"), found.name), found.name)
    folder = materialize(store, found, whole=whole) if fetch else None
    return ServedVersion(found, read_release(store, found), folder)


def mounted(store: Store, folder: Path, *, whole: bool) -> ServedVersion:
    """Nothing is asked of the store: a server that starts again while the store is down must still answer."""
    manifest, release = read_mounted(folder)
    return ServedVersion(store.version_of(manifest), release, servable(folder, manifest, default_cache(), whole=whole))
