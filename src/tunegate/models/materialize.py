"""From a version in the store to a folder that an engine can load, at most once per digest and machine.

Fetched folders and merged ones lie in a cache, named by digest. Two processes may ask at once: the store's fetch allows
for that, and a lock file beside each merged folder lets one of them merge. Everything that is handed out was verified
just before, against the version's digest or against what the merge wrote. A soft prompt of P-tuning v2 can't be merged:
it lies beside its base model, for those who ask for it, and so does a LoRA for those who want to share the base.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tunegate.api.digest import Digest
from tunegate.api.errors import DigestError, ModelError
from tunegate.api.versions import MANIFEST, RELEASE, BaseModel, File, Manifest, ModelVersion
from tunegate.files import alone_with, default_cache, digest_of_file, new_folder, replace_file
from tunegate.models.prompt_tuning import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    FROM_ADAPTER,
    GENERATION,
    LORA,
    PREFIX,
    kind_in,
    refuse_prefix,
)
from tunegate.models.templates import TEMPLATE_FILE, template_of
from tunegate.models.weights import check_weights

if TYPE_CHECKING:
    from tunegate.store import Store

logger = logging.getLogger(__name__)
ADAPTERS = ("lora-adapter", "prompt-adapter")  # the formats that need a base
MERGED = "-merged-2"  # 1 changed both of head and embeddings where only one was trained
BESIDE = "-beside"
_NOT_OF_THE_BASE = (MANIFEST, RELEASE)
# peft's settings of a LoRA that leaves the base's weights as they are, and that its layers alone are enough for.
_PLAIN = {
    *("peft_type", "peft_version", "task_type", "auto_mapping", "inference_mode"),
    *("base_model_name_or_path", "revision"),
    *("r", "rank_pattern", "lora_alpha", "alpha_pattern", "use_rslora", "lora_dropout", "fan_in_fan_out"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("megatron_core", "qalora_group_size"),  # have a value even where nobody asked for what they are about
}


def materialize(
    store: Store,
    version: ModelVersion,
    cache: Path | None = None,
    *,
    whole: bool = True,
    chats: bool = True,
    share_base: bool = False,
) -> Path:
    """A folder with the config, weights, tokenizer and chat template of `version`; an adapter comes merged.

    The folder belongs to the cache: read it, never write to it. With `whole` False it may also be the base model with
    a prefix beside it (`prompt_tuning.has_prefix`), which a loader that knows nothing of prefixes leaves out; with
    `share_base` a LoRA lies so, too (`has_lora`); with `chats` False it may lack a chat template, as a base that
    training gives one.
    Raises StoreError or DigestError from the store, ModelError when the folder can't be used for chat.
    """
    cache = cache or default_cache()
    folder = store.fetch(version.uri, cache / Digest.parse(version.digest).hex, digest=version.digest)
    if version.format in ADAPTERS:
        if whole:
            refuse_prefix(kind_in(folder, version.name), version.name)

        def base() -> Path:
            return materialize(store, resolve_base(store, version), cache, chats=False)

        folder = on_base(folder, folder, base, share_base=share_base)
    check_folder(folder, chats=chats)
    return folder


def check_folder(folder: Path, *, chats: bool = True) -> None:
    """Raise ModelError unless `folder` has what an engine needs to chat: config, tokenizer, chat template, weights."""
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} is not a model folder: config.json is missing; save the model there first.")
    if not (folder / "tokenizer.json").is_file():
        raise ModelError(f"{folder} has no tokenizer.json; save the model's tokenizer into the same folder.")
    if chats and not template_of(folder):
        raise ModelError(f"{folder} has no {TEMPLATE_FILE}; save the chat template it was trained with beside it.")
    check_weights(folder)


def on_base(adapter: Path, place: Path, base: Callable[[], Path], *, share_base: bool = False) -> Path:
    """A folder near `place`, holding the adapter merged into its base, or beside it: a prefix, or with `share_base` a
    LoRA. One that can't lie there is merged, and the log says why.

    It is made again when a file of an earlier time was changed.
    """
    kind = kind_in(adapter)
    if share_base and kind != "PREFIX_TUNING" and (reason := _keeps_from_sharing(adapter, kind)):
        message = "merged an adapter, so it shares no memory with its base"
        logger.warning(message, extra={"adapter": str(adapter), "reason": reason})
        share_base = False
    is_lora_beside = share_base and kind == "LORA"
    folder = place.with_name(place.name + (BESIDE if is_lora_beside else MERGED))
    # What was written, beside it: within, it would pass for a file of the model.
    record = folder.with_name(folder.name + ".json")
    with alone_with(folder):
        if record.is_file():
            files = msgspec.json.decode(record.read_bytes(), type=list[File])
            if all((folder / f.path).is_file() and digest_of_file(folder / f.path) == f.sha256 for f in files):
                return folder
        check_weights(adapter)
        shutil.rmtree(folder, ignore_errors=True)
        with new_folder(folder) as partial:
            if kind == "PREFIX_TUNING":
                _put_prefix_beside(base(), adapter, partial)
            elif is_lora_beside:
                _put_lora_beside(base(), adapter, partial)
            else:
                from tunegate.models.merge import merge_adapter  # torch, and only for a merge that was not made before

                merge_adapter(base(), adapter, partial)
            files = [
                File(path=path.relative_to(partial).as_posix(), size=path.stat().st_size, sha256=digest_of_file(path))
                for path in sorted(path for path in partial.rglob("*") if path.is_file())
            ]
        replace_file(record, msgspec.json.encode(files))
    return folder


def required_base(version: ModelVersion | Manifest) -> BaseModel:
    """The base that `version`, an adapter, needs. Raises ModelError when it names none."""
    if version.base is None:
        raise ModelError(
            f"{version.name} is an adapter that names no base model; publish it with its base, under another name."
        )
    return version.base


def resolve_base(store: Store, version: ModelVersion) -> ModelVersion:
    """The base of `version` as the store has it. Raises DigestError when that is another one."""
    base = required_base(version)
    found = store.resolve(base.uri)
    if found.digest != base.digest:
        raise DigestError(f"{base.uri} is {found.digest}, but {version.name} needs {base.digest}; restore that base.")
    return found


def _put_prefix_beside(base: Path, adapter: Path, into: Path) -> None:
    """The base's files as links, what is said about text from the adapter, and the prefix in a folder of its own."""
    (into / PREFIX).mkdir(parents=True)
    theirs = [path for path in adapter.iterdir() if path.is_file() and path.name not in (MANIFEST, ADAPTER_WEIGHTS)]
    for path in theirs:
        shutil.copyfile(path, into / (PREFIX if path.name == ADAPTER_CONFIG else "") / path.name)
    (into / PREFIX / ADAPTER_WEIGHTS).symlink_to((adapter / ADAPTER_WEIGHTS).resolve())
    for path in sorted(base.iterdir()):
        if path.is_file() and path.name not in _NOT_OF_THE_BASE and not (into / path.name).exists():
            (into / path.name).symlink_to(path.resolve())


def _keeps_from_sharing(adapter: Path, kind: str) -> str:
    """Why the adapter can't be computed beside weights that others compute with, too; empty where it can."""
    if kind != "LORA":
        return "its soft prompt becomes tokens of the vocabulary"
    if not (adapter / ADAPTER_WEIGHTS).is_file():
        return f"it has no {ADAPTER_WEIGHTS}"
    config = msgspec.json.decode((adapter / ADAPTER_CONFIG).read_bytes(), type=dict[str, Any])
    harmless = {"bias": "none", "init_lora_weights": True}
    more = (key for key, value in config.items() if value and key not in _PLAIN and value != harmless.get(key))
    return f"it has {', '.join(found)}" if (found := sorted(more)) else ""


def _put_lora_beside(base: Path, adapter: Path, into: Path) -> None:
    """The base's weights as links: all who map one file share its pages. What merging would take from the adapter is
    the adapter's here, too."""
    if "quantization_config" in msgspec.json.decode((base / "config.json").read_bytes(), type=dict[str, Any]):
        raise ModelError(f"The base model in {base} is quantized; tune the one it was made from, and serve that.")
    (into / LORA).mkdir(parents=True)
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        (into / LORA / name).symlink_to((adapter / name).resolve())
    for name in FROM_ADAPTER:
        if (adapter / name).is_file():
            shutil.copyfile(adapter / name, into / name)
    for path in sorted(base.iterdir()):
        is_wanted = path.name in ("config.json", GENERATION) or path.name.endswith(
            (".safetensors", ".bin", "index.json")
        )
        if is_wanted and not (into / path.name).exists():
            (into / path.name).symlink_to(path.resolve())
