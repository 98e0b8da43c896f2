"""The base models that a laptop can start from, made once and published as versions."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import msgspec

from tunegate.api.errors import UsageError
from tunegate.api.versions import ModelVersion, Producer, Release
from tunegate.corpus import DATA
from tunegate.models import convert_smollm2, make_tiny
from tunegate.store import Store

BASES = ("smollm2-135m-instruct", "tiny")


def publish_base(name: str, store: Store, cache: Path) -> ModelVersion:
    """The base model `name` as a version in the store; made in `cache` where it is not there yet.

    Raises UsageError for an unknown name, ModelError when its package is not installed.
    """
    folder = cache / "bases" / name
    if not folder.exists():
        partial = folder.with_name(f".{name}")
        shutil.rmtree(partial, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        _make(name, partial)
        partial.rename(folder)
    producer = Producer(kind="tunegate quickstart", run="base", notes={"source": name})
    return store.publish(folder, f"{name}/base/checkpoint-0", release=Release(format="huggingface"), producer=producer)


def _make(name: str, folder: Path) -> None:
    if name == "tiny":
        make_tiny(folder, _corpus_texts())
    elif name == "smollm2-135m-instruct":
        convert_smollm2(folder)
    else:
        raise UsageError(f"There is no base model {name}; choose one of {', '.join(BASES)}.")


def _corpus_texts() -> Iterable[str]:
    for path in sorted(DATA.glob("dialogues_*.jsonl")):
        for line in path.read_bytes().splitlines():
            yield from (message["content"] for message in msgspec.json.decode(line)["messages"])
