"""The version, or the folder, whose training a run takes further: found, and held against what the flags say.

It must not know how it is loaded: what a run needs of it is a folder, and a name and digest for its record.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from tunegate.api.digest import Digest
from tunegate.api.errors import UsageError
from tunegate.api.pinned import base_of
from tunegate.api.versions import BaseModel, ModelVersion
from tunegate.files import default_cache, digest_of_file
from tunegate.models.materialize import ADAPTERS, materialize
from tunegate.models.prompt_tuning import ADAPTER_CONFIG, ADAPTER_WEIGHTS, kind_in
from tunegate.store import Store
from tunegate.training.config import TrainConfig
from tunegate.training.run.base_model import base_digest
from tunegate.training.run.layout import RECORD

_METHODS = {"LORA": "lora", "P_TUNING": "p_tuning", "PREFIX_TUNING": "p_tuning_v2"}


@dataclass(frozen=True)
class Parent:
    """What a run begins with beside its base, or instead of it: the folder, the version if it is one, its digest.

    base: the digest of the weights that its own training began with.
    """

    name: str
    folder: Path
    version: ModelVersion | None
    digest: str
    base: str

    @property
    def is_adapter(self) -> bool:
        return (self.folder / ADAPTER_CONFIG).is_file()

    @property
    def pinned(self) -> BaseModel:
        """As a manifest names it; a folder has no name elsewhere."""
        return base_of(self.version) if self.version else BaseModel(uri="", digest=self.digest)


def find_parent(config: TrainConfig, store: Store | None, base: str) -> Parent | None:
    """What --resume_from names, None where it names nothing. base: the digest of the run's base.

    Raises UsageError or StoreError where there is none, or where method, sizes or base are others than the flags say.
    """
    if not config.resume_from:
        return None
    folder = Path(config.resume_from)
    if folder.is_dir():
        found = _in_folder(folder)
    elif store is None:
        raise UsageError(f"There is no folder {folder}; correct --resume_from, or give --store for a version.")
    else:
        found = _in_store(store, config.resume_from)
    _check(found, config, base)
    return found


def _in_store(store: Store, name: str) -> Parent:
    manifest = store.manifest(name)
    version = store.version_of(manifest)
    if version.format in ADAPTERS:
        folder = store.fetch(version.uri, default_cache() / Digest.parse(version.digest).hex, digest=version.digest)
        base = version.base.digest if version.base else ""
    else:
        folder = materialize(store, version, chats=False)
        base = manifest.producer.training.base if manifest.producer.training else ""
    return Parent(version.name, folder, version, version.digest, base)


def _in_folder(folder: Path) -> Parent:
    """A run's folder, or one of its checkpoints."""
    record = next((path for path in (folder / RECORD, folder.parent / RECORD) if path.is_file()), None)
    if record is None:
        raise UsageError(
            f"{folder} is no checkpoint of a run of tunegate, so nothing says what it was trained on; publish it with "
            "`tunegate models publish --base VERSION`, and give --resume_from that version."
        )
    base = msgspec.json.decode(record.read_bytes(), type=dict[str, Any])["base"]
    weights = folder / ADAPTER_WEIGHTS  # alone: a run goes on to write beside them
    digest = str(Digest(digest_of_file(weights))) if weights.is_file() else base_digest(folder, None)
    return Parent(str(folder), folder, None, digest, base)


def _check(found: Parent, config: TrainConfig, base: str) -> None:
    _check_method(found, config)
    if base not in (found.base, found.digest):
        raise UsageError(
            f"{found.name} was trained on the base {found.base or 'that nobody names'}, and --model_name_or_path is "
            f"{base}; give that base."
        )
    differing = {flag: (own, given) for flag, own, given in _sizes(found, config) if own != given}
    if differing:
        own = " ".join(f"--{flag} {value}" for flag, (value, _) in differing.items())
        given = ", ".join(str(value) for _, value in differing.values())
        raise UsageError(f"{found.name} was trained with {own}, where the flags say {given}; give what it has.")


def _check_method(found: Parent, config: TrainConfig) -> None:
    method = _METHODS[kind_in(found.folder, found.name)] if found.is_adapter else "full"
    if method != config.finetuning_type and (method, config.finetuning_type) != ("full", "freeze"):
        raise UsageError(
            f"{found.name} was trained with --finetuning_type {method}, where the flags say {config.finetuning_type}; "
            f"give what it has, or merge an adapter with `tunegate merge` and give that as --model_name_or_path."
        )
    if method == "p_tuning":
        raise UsageError(
            f"{found.name} holds its soft prompt as it is served, without the encoder that p_tuning trains; start "
            "from the base without --resume_from, or use p_tuning_v2."
        )


def _sizes(found: Parent, config: TrainConfig) -> Iterator[tuple[str, Any, Any]]:
    """Flags that say of an adapter what its own settings say, too: what each says."""
    if not found.is_adapter:
        return
    own = msgspec.json.decode((found.folder / ADAPTER_CONFIG).read_bytes(), type=dict[str, Any])
    if config.finetuning_type == "lora":
        yield "lora_rank", own.get("r"), config.lora_rank
        yield "lora_alpha", own.get("lora_alpha"), config.alpha
    else:
        yield "num_virtual_tokens", own.get("num_virtual_tokens"), config.num_virtual_tokens
