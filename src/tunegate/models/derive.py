"""What `merge` and `quantize` share: a folder that was made from a version becomes a version that says so."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tunegate import __version__
from tunegate.api.codec import changed
from tunegate.api.errors import UsageError
from tunegate.api.versions import BaseModel, Derived, ModelVersion, Release
from tunegate.cli.options import transfer_bar

if TYPE_CHECKING:
    from tunegate.store import Store


def whole_release(store: Store, version: ModelVersion, base: BaseModel | None) -> Release:
    """The release of `version`, for whole weights made from `base`: what is said to the model stays the same."""
    from tunegate.store.release import read_release

    return changed(read_release(store, version), format="huggingface", base=base)


def check_name(name: str, version: ModelVersion) -> None:
    """Raise UsageError when `name` can't be that of a version made from `version`."""
    from tunegate.api.names import require_name

    if require_name(name).split("/")[:2] == version.name.split("/")[:2]:
        raise UsageError(f"{name} would be a checkpoint of the run it was made from; give it a run of its own.")


def publish_derived(
    store: Store,
    version: ModelVersion,
    folder: Path,
    name: str,
    *,
    kind: str,
    release: Release,
    quantization: str = "",
    weight_error: float | None = None,
) -> ModelVersion:
    """Publish `folder`, which `kind` made from `version`, as `name`, with what is known of how that was trained."""
    producer = store.manifest(version.digest).producer
    producer = msgspec.structs.replace(
        producer,
        kind=kind,
        run=name.split("/")[1],
        uid="",
        image="",
        code_version=__version__,
        derived=Derived(uri=version.uri, digest=version.digest, quantization=quantization, weight_error=weight_error),
    )
    with transfer_bar(f"Publishing {name}") as progress:
        return store.publish(folder, name, release=release, producer=producer, progress=progress)
