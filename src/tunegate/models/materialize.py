"""From a version in the store to a folder that an engine can load, at most once per digest and machine.

Fetched folders and merged ones lie in a cache, named by digest. Two processes may ask at once: the store's fetch allows
for that, and a lock file beside each merged folder lets one of them merge. Everything that is handed out was verified
just before, against the version's digest or against what the merge wrote. A soft prompt of P-tuning v2 can't be merged:
it lies beside its base model, for those who ask for it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tunegate.api.digest import Digest
from tunegate.api.errors import DigestError, ModelError
from tunegate.api.versions import MANIFEST, RELEASE, BaseModel, File, Manifest, ModelVersion
from tunegate.files import alone_with, default_cache, digest_of_file, new_folder, replace_file
from tunegate.models.prompt_tuning import ADAPTER_CONFIG, ADAPTER_WEIGHTS, PREFIX, kind_in, refuse_prefix
from tunegate.models.templates import TEMPLATE_FILE, template_of
from tunegate.models.weights import check_weights

if TYPE_CHECKING:
    from tunegate.store import Store

ADAPTERS = ("lora-adapter", "prompt-adapter")  # the formats that need a base
MERGED = "-merged-2"  # 1 changed both of head and embeddings where only one was trained
_NOT_OF_THE_BASE = (MANIFEST, RELEASE)


def materialize(
    store: Store, version: ModelVersion, cache: Path | None = None, *, whole: bool = True, chats: bool = True
) -> Path:
    """A folder with the config, weights, tokenizer and chat template of `version`; an adapter comes merged.

    The folder belongs to the cache: read it, never write to it. With `whole` False it may also be the base model with
    a prefix beside it (`prompt_tuning.has_prefix`), which a loader that knows nothing of prefixes leaves out; with
    `chats` False it may lack a chat template, as a base that training gives one.
    Raises StoreError or DigestError from the store, ModelError when the folder can't be used for chat.
    """
    cache = cache or default_cache()
    folder = store.fetch(version.uri, cache / Digest.parse(version.digest).hex, digest=version.digest)
    if version.format in ADAPTERS:
        target = folder.with_name(f"{folder.name}{MERGED}")
        if whole:
            refuse_prefix(kind_in(folder, version.name), version.name)
        folder = on_base(folder, target, lambda: materialize(store, resolve_base(store, version), cache, chats=False))
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


def on_base(adapter: Path, folder: Path, base: Callable[[], Path]) -> Path:
    """`folder`, holding the adapter merged into its base, or beside it where it is a prefix.

    It is made again when a file of an earlier time was changed.
    """
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
            if kind_in(adapter) == "PREFIX_TUNING":
                _put_beside(base(), adapter, partial)
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


def _put_beside(base: Path, adapter: Path, into: Path) -> None:
    """The base's files as links, what is said about text from the adapter, and the prefix in a folder of its own."""
    (into / PREFIX).mkdir(parents=True)
    theirs = [path for path in adapter.iterdir() if path.is_file() and path.name not in (MANIFEST, ADAPTER_WEIGHTS)]
    for path in theirs:
        shutil.copyfile(path, into / (PREFIX if path.name == ADAPTER_CONFIG else "") / path.name)
    (into / PREFIX / ADAPTER_WEIGHTS).symlink_to((adapter / ADAPTER_WEIGHTS).resolve())
    for path in sorted(base.iterdir()):
        if path.is_file() and path.name not in _NOT_OF_THE_BASE and not (into / path.name).exists():
            (into / path.name).symlink_to(path.resolve())
