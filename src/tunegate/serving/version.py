"""The version that a server serves: from the store, or from a folder that `tunegate initialize` left."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tunegate.api.versions import KNOWLEDGE, ModelVersion, Release
from tunegate.files import default_cache
from tunegate.models import materialize
from tunegate.models.mount import read_mounted, servable
from tunegate.models.prompt_tuning import ADAPTER_CONFIG, kind_in, kind_of, refuse_prefix
from tunegate.store import Store
from tunegate.store.release import cached_index, fetch_index, fetch_prompts, read_release


@dataclass(frozen=True)
class ServedVersion:
    """What is served. `folder`: its verified weights, or None where the engine has loaded them itself.

    prompts, knowledge: the verified folders of its prompt templates and of its index; None where it has none.
    """

    version: ModelVersion
    release: Release
    folder: Path | None
    prompts: Path | None = None
    knowledge: Path | None = None


def from_store(store: Store, name: str, *, whole: bool, fetch: bool, share_base: bool = False) -> ServedVersion:
    """Find the version by name, URI or digest. `whole`: the engine takes whole models only. `fetch`: it is ours.
    `share_base`: it takes a LoRA that is not merged, too."""
    found = store.resolve(name)
    if whole and found.format == "prompt-adapter":
        refuse_prefix(kind_of(store.get(f"{found.name}/{ADAPTER_CONFIG}"), found.name), found.name)
    release, cache = read_release(store, found), default_cache()
    prompts = fetch_prompts(store, found, release, cache)
    knowledge = fetch_index(store, release, cached_index(release.knowledge, cache)) if release.knowledge else None
    folder = materialize(store, found, cache, whole=whole, share_base=share_base) if fetch else None
    return ServedVersion(found, release, folder, prompts, knowledge)


def mounted(store: Store, folder: Path, *, whole: bool, fetch: bool, share_base: bool = False) -> ServedVersion:
    """As `from_store`. Nothing is asked of the store: a server that starts again while it is down must still answer."""
    manifest, release = read_mounted(folder, weights=fetch)
    if whole and manifest.format == "prompt-adapter":
        refuse_prefix(kind_in(folder, manifest.name), manifest.name)
    prompts = folder / release.prompts.path if release.prompts else None
    knowledge = folder / KNOWLEDGE if release.knowledge else None
    weights = servable(folder, manifest, default_cache(), whole=whole, share_base=share_base) if fetch else None
    return ServedVersion(store.version_of(manifest), release, weights, prompts, knowledge)
