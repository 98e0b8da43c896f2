"""Equal inputs give an equal version, whatever folder, store and day they were trained in."""

from __future__ import annotations

import getpass
import platform
from pathlib import Path

import pytest

from tests.unit.training.alone import train_here
from tests.unit.training.builders import dialogues, make_config, texts, write_dialogues
from tunegate.api.versions import ModelVersion, Producer, Release
from tunegate.models import make_tiny, materialize
from tunegate.store import EmbeddedStore, Store

# What DeepSpeed, accelerate, peft and torch think of one another's names.
pytestmark = [pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("DeprecationWarning", "FutureWarning")]


def trained(store: Store, folder: Path, method: str) -> list[ModelVersion]:
    """The versions of one run of three steps, called as `folder`, with base, data and output in it."""
    store.publish(
        make_tiny(folder / "model", texts()),
        "tiny/base/checkpoint-0",
        release=Release(format="huggingface"),
        producer=Producer(kind="test"),
    )
    data = write_dialogues(folder / "data", dialogues(12))
    settings = {"endpoint_url": store.endpoint_url, "run": folder.name, "nproc_per_node": 1, "finetuning_type": method}
    return train_here(make_config(store.uri, data, folder / "output", num_train_epochs=1, **settings))


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_same_training_twice_is_the_same_version(
    method: str, embedded_store: EmbeddedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in embedded_store.environment.items():
        monkeypatch.setenv(name, value)
    digests = []
    for place in ("here", "there"):
        folder = tmp_path / place
        folder.mkdir()
        monkeypatch.setenv("TUNEGATE_CACHE", str(folder / "cache"))
        uri = f"{embedded_store.uri}/{tmp_path.name}/{place}"
        store = Store.open(uri, endpoint_url=embedded_store.endpoint_url)
        versions = trained(store, folder, method)
        digests.append([version.digest for version in versions])

        fetched = store.fetch(versions[-1].uri, folder / "fetched", include_resume=True)
        mine = [str(tmp_path), uri]
        mine += [
            name for name in (platform.node(), getpass.getuser()) if len(name) > 5
        ]  # shorter ones occur in weights
        for file in (path for top in (fetched, materialize(store, versions[-1])) for path in top.rglob("*")):
            if file.is_file() and file.name != "manifest.json":
                told = [word for word in mine if word.encode() in file.read_bytes()]
                assert not told, f"{file.relative_to(folder)} tells {told}"

    assert digests[0] == digests[1]
    assert digests[0]
