"""Versions made from versions: an adapter merged into its base, weights quantized.

What was made says what it was made from, and has the same release, prompts included.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import msgspec

from tunegate import __version__
from tunegate.api.codec import changed, to_yaml
from tunegate.api.errors import UsageError
from tunegate.api.names import require_name
from tunegate.api.pinned import base_of
from tunegate.api.versions import RELEASE, Derived, ModelVersion, Producer, Release
from tunegate.files import default_cache
from tunegate.models.materialize import ADAPTERS, materialize
from tunegate.store import Progress, Store
from tunegate.store.release import fetch_prompts, read_release

if TYPE_CHECKING:
    from tunegate.models.quantize import Quantized


def merge_to_folder(store: Store, version: ModelVersion, folder: Path) -> None:
    """Write `version`, an adapter, as whole weights to `folder`, which doesn't exist yet.

    Raises UsageError for a version that is no adapter, ModelError for an adapter that can't be merged.
    """
    release = _merged_release(store, version)
    shutil.copytree(materialize(store, version), folder)
    (folder / RELEASE).write_bytes(to_yaml(release))
    if prompts := fetch_prompts(store, version, release, default_cache()):
        shutil.copytree(prompts, folder / prompts.name, dirs_exist_ok=True)


def merge_version(store: Store, version: ModelVersion, name: str, progress: Progress | None = None) -> ModelVersion:
    """Publish `version`, an adapter, as whole weights under `name`. Raises as `merge_to_folder`."""
    check_name(name, version)
    release = _merged_release(store, version)
    derived = Derived(uri=version.uri, digest=version.digest)
    return _publish(store, materialize(store, version), name, "tunegate merge", release, derived, progress)


def quantize_version(
    store: Store, version: ModelVersion, method: str, name: str | None = None, progress: Progress | None = None
) -> tuple[ModelVersion, Quantized]:
    """Publish `version` with weights by `method` (int8, int4 or fp8), and say what that cost.

    name: MODEL/RUN-METHOD/checkpoint-STEP of `version` unless it is given. Raises UsageError for a name that it can't
    have, ModelError for a model that can't be quantized.
    """
    model, run, checkpoint = version.name.split("/")
    name = name or f"{model}/{run}-{method}/{checkpoint}"
    check_name(name, version)
    release = changed(read_release(store, version), format="huggingface", base=base_of(version))
    from tunegate.models.quantize import quantize  # torch, once the name is known to be right

    source = materialize(store, version)
    with TemporaryDirectory(prefix="quantizing-", dir=default_cache()) as scratch:  # where there is room for a model
        folder = Path(scratch) / "model"
        result = quantize(source, folder, method)
        derived = Derived(
            uri=version.uri, digest=version.digest, quantization=method, weight_error=round(result.error, 4)
        )
        return _publish(store, folder, name, "tunegate quantize", release, derived, progress), result


def _merged_release(store: Store, version: ModelVersion) -> Release:
    if version.format not in ADAPTERS:
        raise UsageError(f"{version.name} is whole already; fetch it with: tunegate models fetch {version.name} FOLDER")
    return changed(read_release(store, version), format="huggingface", base=version.base)


def check_name(name: str, version: ModelVersion) -> None:
    """Raise UsageError for a name that no version made of `version` can have."""
    if require_name(name).split("/")[:2] == version.name.split("/")[:2]:
        raise UsageError(f"{name} would be a checkpoint of the run it was made from; give it a run of its own.")


def _publish(
    store: Store, folder: Path, name: str, kind: str, release: Release, derived: Derived, progress: Progress | None
) -> ModelVersion:
    """Publish what `kind` made, with the prompts of the version it was made from."""
    prompts = fetch_prompts(store, store.resolve(derived.digest), release, default_cache())
    producer = made_of(store, derived, name, kind)
    return store.publish(folder, name, release=release, producer=producer, prompts=prompts, progress=progress)


def made_of(store: Store, derived: Derived, name: str, kind: str) -> Producer:
    """What `kind` made as `name`, with what is known of how the version it was made from was trained."""
    producer = store.manifest(derived.digest).producer
    return msgspec.structs.replace(
        producer, kind=kind, run=name.split("/")[1], uid="", image="", code_version=__version__, derived=derived
    )
