from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from huggingface_hub import constants

from tests.hub import COMMIT, Hub, files_of
from tunegate.models.hub import HubModel, fetch_from_hub, parse_hub, publish_from_hub, published
from tunegate.store import Store

SOURCE = HubModel("hf", "shop/tiny")
IN_MODELSCOPE = pytest.param(
    HubModel("ms", "shop/tiny"),
    id="ms",
    marks=pytest.mark.skipif(find_spec("modelscope_hub") is None, reason="ModelScope's client is not installed"),
)


@pytest.mark.parametrize(
    ("text", "revision", "found"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", "", HubModel("hf", "Qwen/Qwen2.5-7B-Instruct")),
        ("Qwen/Qwen2.5-7B-Instruct", "v1.0", HubModel("hf", "Qwen/Qwen2.5-7B-Instruct", "v1.0")),
        ("hf://Qwen/Qwen3-8B@refs/pr/1", "", HubModel("hf", "Qwen/Qwen3-8B", "refs/pr/1")),
        ("hf://Qwen/Qwen3-8B@main", "", HubModel("hf", "Qwen/Qwen3-8B")),
        ("ms://Qwen/Qwen3-8B", "master", HubModel("ms", "Qwen/Qwen3-8B")),
        *((text, "", None) for text in ("tiny/base/checkpoint-0", "./Qwen/Qwen3", "/data/Qwen", "s3://b/Qwen", "Qwen")),
    ],
)
def test_an_id_names_a_model_of_a_hub(text: str, revision: str, found: HubModel | None) -> None:
    assert parse_hub(text, revision) == found


def test_a_bare_id_is_one_of_the_hub_that_the_environment_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USE_MODELSCOPE_HUB", "1")
    assert parse_hub("Qwen/Qwen3-8B") == HubModel("ms", "Qwen/Qwen3-8B")
    assert parse_hub("hf://Qwen/Qwen3-8B") == HubModel("hf", "Qwen/Qwen3-8B")


@pytest.mark.parametrize("source", [pytest.param(SOURCE, id="hf"), IN_MODELSCOPE])
def test_a_model_is_published_once_with_its_commit(
    running_hub: Hub, store: Store, tiny: Path, source: HubModel
) -> None:
    assert published(store, source) is None

    version = publish_from_hub(store, source)

    made = store.manifest(version.name)
    assert version.name == f"tiny/{source.hub}-{COMMIT[:12]}/checkpoint-0"
    assert made.producer.arguments == {"source": source.uri, "revision": COMMIT, "asked": ""}
    assert {file.path for file in made.files} == {*files_of(tiny), "release.yaml"}
    running_hub.asked.clear()
    assert published(store, source) == version
    assert published(store, HubModel(source.hub, source.name, COMMIT)) == version
    assert published(store, HubModel(source.hub, source.name, "v2")) is None
    assert running_hub.asked == []


@pytest.mark.parametrize("other", [pytest.param(HubModel("hf", "shop/tiny", "v1"), id="hf"), IN_MODELSCOPE])
def test_what_a_hub_has_under_another_name_is_the_same_bytes(running_hub: Hub, store: Store, other: HubModel) -> None:
    running_hub.repositories["shop/tiny"].revisions += ("v1",)
    first = publish_from_hub(store, SOURCE)
    again = publish_from_hub(store, other, "shop/mine/checkpoint-0")

    assert again.digest == first.digest
    assert published(store, other) == again


@pytest.mark.parametrize("source", [pytest.param(SOURCE, id="hf"), IN_MODELSCOPE])
def test_a_download_that_was_cut_goes_on(
    running_hub: Hub, tiny: Path, source: HubModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 16)  # what is less than one is fetched again
    running_hub.cut = {"model.safetensors"}

    folder = fetch_from_hub(source).folder

    assert files_of(folder) == files_of(tiny)
    assert any(asked.startswith("bytes=") and not asked.startswith("bytes=0-") for _, _, asked in running_hub.asked)


def test_what_was_fetched_is_found_without_the_hub(running_hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = fetch_from_hub(SOURCE)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    running_hub.asked.clear()

    assert fetch_from_hub(SOURCE) == fetched
    assert running_hub.asked == []


def test_the_command_asks_the_hub_of_the_environment_through_its_proxy(running_hub: Hub, store: Store) -> None:
    program = os.path.join(os.path.dirname(sys.executable), "tunegate")
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://hub.test", "HTTP_PROXY": running_hub.url}
    environment |= {"HF_HOME": os.environ["TUNEGATE_CACHE"]}

    done = subprocess.run(
        [program, "models", "publish", f"hf://shop/tiny@{COMMIT}"], env=environment, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr
    [version] = store.list()
    assert version.name == f"tiny/hf-{COMMIT[:12]}/checkpoint-0"
    assert store.manifest(version.name).producer.arguments["asked"] == COMMIT
