"""The folder of the model that a run begins with, wherever it is: here, in a bucket, or a version in the store."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from tunegate.api.digest import Digest
from tunegate.api.errors import ModelError, NotFoundError, UsageError
from tunegate.api.versions import File, ModelVersion, digest_of
from tunegate.files import default_cache, digest_of_file, replace_file
from tunegate.models.hub import fetch_from_hub, parse_hub, publish_from_hub, published
from tunegate.models.materialize import materialize
from tunegate.models.prompt_tuning import leading_tokens
from tunegate.models.weights import check_weights
from tunegate.store import Store
from tunegate.store.files import fetch_plain, is_uri
from tunegate.training.config import TrainConfig

_VERSION = re.compile(r"[^/]+/[^/]+/checkpoint-\d+/?")


def base_folder(config: TrainConfig, store: Store | None) -> tuple[Path, ModelVersion | None]:
    """The folder with the base model, and the version it is, unless it is only a folder.

    Raises UsageError or StoreError where there is none, ModelError when no model is in it.
    """
    name = config.model_name_or_path
    folder, version = _find(config, store)
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} is not a model folder: it has no config.json; save the model there first.")
    if not (folder / "tokenizer.json").is_file():
        raise ModelError(f"{folder} has no tokenizer.json; save the model's tokenizer into the same folder.")
    try:
        settings = msgspec.json.decode((folder / "config.json").read_bytes(), type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise ModelError(f"{folder / 'config.json'} can't be read: {error}; save the model there again.") from None
    # These load and train, and would then not be what was trained.
    if "quantization_config" in settings:
        raise ModelError(f"{name} has quantized weights, which can't be tuned; train the version it was made from.")
    if leading_tokens(folder):
        raise ModelError(f"{name} has a soft prompt, which training would leave out; train from its base instead.")
    return folder, version


def _find(config: TrainConfig, store: Store | None) -> tuple[Path, ModelVersion | None]:
    name = config.model_name_or_path
    folder = Path(name)
    model = None if folder.is_dir() else parse_hub(name, config.model_revision)
    if model is None and config.model_revision:
        raise UsageError(f"--model_revision is for a model of a hub, which {name} is not; leave it out.")
    if model and store:
        version = published(store, model) or publish_from_hub(store, model)
        return materialize(store, version, chats=False), version
    if model:
        return fetch_from_hub(model).folder, None
    if is_uri(name) and not (store and _VERSION.fullmatch(name.removeprefix(f"{store.uri}/"))):
        return fetch_plain(name, default_cache(), endpoint_url=config.endpoint_url), None
    if folder.is_dir():
        return folder, None
    if store is None:
        raise UsageError(f"There is no folder {name}; correct --model_name_or_path, or give --store for a version.")
    version = store.resolve(name)
    return materialize(store, version, chats=False), version


def config_folder(config: TrainConfig) -> Path | None:
    """A folder with the base's config.json, where that is here, in a bucket or of a version in the store; only that
    file is fetched. None for a model of a hub, a name that nobody knows here, and a version without such a file.

    Raises StoreError when the store can't be read, UsageError for a name that is no version's.
    """
    name = config.model_name_or_path
    if (Path(name) / "config.json").is_file():
        return Path(name)
    uri = name
    if not is_uri(name):
        if config.store is None or not _VERSION.fullmatch(name):
            return None
        uri = Store.open(config.store, endpoint_url=config.endpoint_url).resolve(name).uri
    try:
        return fetch_plain(f"{uri.rstrip('/')}/config.json", default_cache(), endpoint_url=config.endpoint_url).parent
    except NotFoundError:
        return None


def check_base(folder: Path, digest: str) -> None:
    """Raise ModelError unless the model in `folder`, whose bytes `digest` names, is whole by numbers, names and shapes.

    Names and shapes take torch, which takes seconds to import: what fitted once is remembered in the cache.
    """
    check_weights(folder)
    fitted = default_cache() / "fitted" / Digest.parse(digest).hex
    if not fitted.is_file():
        from tunegate.models.network import check_network

        check_network(folder)
        with suppress(OSError):  # a cache that can't be written costs time, nothing else
            replace_file(fitted, b"")


def base_digest(folder: Path, version: ModelVersion | None) -> str:
    """What names the bytes of the base model: the version's digest, or one of the same kind over the folder's files."""
    if version is not None:
        return version.digest
    cache = default_cache() / "digests"
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return digest_of(
        File(
            path=path.relative_to(folder).as_posix(),
            size=path.stat().st_size,
            sha256=digest_of_file(path, cache=cache),
        )
        for path in paths
    )
