"""Versions that are made from versions say so, and serve as those did."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.adapters import tuned
from tunegate.api.errors import ModelError, UsageError
from tunegate.api.pinned import base_of
from tunegate.api.versions import BaseModel, Cost, Dataset, Derived, Format, ModelVersion, Producer, Release, Training
from tunegate.models import check_folder, materialize
from tunegate.models.derive import merge_to_folder, merge_version, quantize_version
from tunegate.store import Store
from tunegate.store.release import read_release

MADE = Producer(
    kind="tunegate train",
    run="prompt",
    uid="42",
    seed=7,
    datasets=(Dataset(name="shop", digest="sha256:" + "1" * 64),),
    step=3,
    loss=0.5,
    training=Training(method="p_tuning", total_steps=3, cost=Cost(seconds=12.5)),
)


@pytest.fixture
def beneath(store: Store, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelVersion:
    monkeypatch.setenv("TUNEGATE_CACHE", str(tmp_path / "cache"))
    return store.publish(base, "shop/base/checkpoint-0", release=Release(format="huggingface"), producer=MADE)


@pytest.fixture
def version(store: Store, beneath: ModelVersion, prompt: Path) -> ModelVersion:
    return publish(store, beneath, prompt, "shop/prompt/checkpoint-3", "prompt-adapter")


def publish(store: Store, beneath: ModelVersion, folder: Path, name: str, format_: Format) -> ModelVersion:
    base = BaseModel(uri=beneath.uri, digest=beneath.digest)
    release = Release(format=format_, base=base, system_prompt="You are Xuan.", generation={"max_tokens": 5})
    return store.publish(folder, name, release=release, producer=MADE)


def test_a_merged_folder_says_what_the_adapter_says(
    store: Store, version: ModelVersion, base: Path, prompt: Path, tmp_path: Path
) -> None:
    merge_to_folder(store, version, tmp_path / "merged")

    check_folder(tmp_path / "merged")
    ask = [{"role": "user", "content": "Price?"}]
    logits = []
    for model, folder in ((tuned(base, prompt), base), (None, tmp_path / "merged")):
        words = AutoTokenizer.from_pretrained(folder).apply_chat_template(ask, return_tensors="pt", return_dict=True)
        with torch.no_grad():
            logits.append((model or AutoModelForCausalLM.from_pretrained(folder))(**words).logits[0, -1])
    torch.testing.assert_close(logits[1][: len(logits[0])], logits[0], atol=1e-4, rtol=0)
    release = msgspec.yaml.decode((tmp_path / "merged" / "release.yaml").read_bytes(), type=Release)
    assert (release.format, release.system_prompt, release.base) == ("huggingface", "You are Xuan.", version.base)


def test_a_merged_version_tells_where_it_came_from(store: Store, version: ModelVersion) -> None:
    merged = merge_version(store, version, "shop/prompt-merged/checkpoint-3")

    assert merged == store.resolve("shop/prompt-merged/checkpoint-3")
    assert (merged.format, merged.base) == ("huggingface", version.base)
    release = read_release(store, merged)
    assert (release.system_prompt, release.generation) == ("You are Xuan.", {"max_tokens": 5})
    producer = store.manifest(merged.digest).producer
    assert (producer.kind, producer.run, producer.uid) == ("tunegate merge", "prompt-merged", "")
    assert (producer.seed, producer.datasets, producer.loss) == (MADE.seed, MADE.datasets, MADE.loss)
    assert (producer.training, producer.derived) == (MADE.training, Derived(uri=version.uri, digest=version.digest))
    assert {file.path for file in store.manifest(merged.digest).files} >= {"model.safetensors", "tokenizer.json"}
    assert merge_version(store, version, merged.name) == merged  # the same bytes again


def test_a_quantized_version_is_one_of_its_own(store: Store, version: ModelVersion, tmp_path: Path) -> None:
    small, result = quantize_version(store, version, "int8")

    assert small == store.resolve("shop/prompt-int8/checkpoint-3")
    assert result.bytes_now < result.bytes_before
    assert (small.format, small.base) == ("huggingface", base_of(version))
    assert read_release(store, small).system_prompt == "You are Xuan."
    producer = store.manifest(small.digest).producer
    assert (producer.kind, producer.run, producer.derived.quantization) == ("tunegate quantize", "prompt-int8", "int8")
    assert 0 < producer.derived.weight_error < 0.02
    folder = materialize(store, small)
    assert json.loads((folder / "config.json").read_bytes())["quantization_config"]["format"] == "pack-quantized"
    assert not list((tmp_path / "cache").glob("quantizing-*"))


def test_a_prefix_is_neither_merged_nor_quantized(
    store: Store, beneath: ModelVersion, prefix: Path, tmp_path: Path
) -> None:
    version = publish(store, beneath, prefix, "shop/prefix/checkpoint-3", "prompt-adapter")

    with pytest.raises(ModelError, match="no whole model"):
        merge_to_folder(store, version, tmp_path / "merged")
    with pytest.raises(ModelError, match="no whole model"):
        quantize_version(store, version, "int8")
    assert not (tmp_path / "merged").exists()


def test_a_whole_model_is_not_merged_and_a_run_keeps_its_checkpoints(
    store: Store, beneath: ModelVersion, version: ModelVersion, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="is whole already; fetch it"):
        merge_to_folder(store, beneath, tmp_path / "merged")
    with pytest.raises(UsageError, match="give it a run of its own"):
        merge_version(store, version, "shop/prompt/checkpoint-4")
    with pytest.raises(UsageError, match="give it a run of its own"):
        quantize_version(store, beneath, "int8", "shop/base/checkpoint-1")
