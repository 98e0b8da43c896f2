"""An adapter is published with the base that it fits, and with no other; the base's weights are not read for that."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoConfig

from tests.adapters import make_lora
from tunegate.api.errors import ModelError
from tunegate.api.pinned import base_of
from tunegate.api.versions import Format, ModelVersion, Producer, Release
from tunegate.models.fit import require_fit
from tunegate.store import Store


@pytest.fixture(scope="module")
def lora(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_lora(base, tmp_path_factory.mktemp("lora") / "adapter", target_modules="all-linear")


def publish(
    store: Store, folder: Path, run: str, format_: Format = "huggingface", base: ModelVersion | None = None
) -> ModelVersion:
    release = Release(format=format_, base=base_of(base) if base else None)
    return store.publish(folder, f"shop/{run}/checkpoint-1", release=release, producer=Producer(kind="test"))


def only_config(base: Path, folder: Path, **changes: object) -> Path:
    """A base of another shape, without weights."""
    folder.mkdir()
    config = AutoConfig.from_pretrained(base)
    layers = changes.get("num_hidden_layers", config.num_hidden_layers)
    config.update({**changes, "layer_types": config.layer_types[:1] * layers})
    config.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["lora", "prompt", "prefix"])
def test_an_adapter_fits_the_base_it_was_trained_on(
    store: Store, base: Path, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    version = publish(store, only_config(base, tmp_path / "base"), "base")
    require_fit(store, request.getfixturevalue(kind), version)


def test_an_adapter_on_an_adapter_is_held_against_the_model_beneath(
    store: Store, base: Path, lora: Path, tmp_path: Path
) -> None:
    beneath = publish(store, only_config(base, tmp_path / "base"), "base")
    narrow = publish(store, only_config(base, tmp_path / "narrow", hidden_size=64), "narrow")

    require_fit(store, lora, publish(store, lora, "first", "lora-adapter", beneath))
    with pytest.raises(ModelError, match="does not fit"):
        require_fit(store, lora, publish(store, lora, "second", "lora-adapter", narrow))


@pytest.mark.parametrize(
    ("kind", "changes", "reason"),
    [
        pytest.param("lora", {"hidden_size": 64}, r"q_proj.*\[4, 128\], not \[4, 64\]", id="narrower, LoRA"),
        pytest.param("lora", {"num_hidden_layers": 2}, r"layers\.2\..*no place for", id="fewer layers, LoRA"),
        pytest.param("lora", {"num_hidden_layers": 6}, r"it lacks .*layers\.4\.", id="more layers, LoRA"),
        pytest.param("prompt", {"hidden_size": 64}, "it is 128 wide, and the model 64", id="narrower, P-tuning"),
        pytest.param("prefix", {"num_hidden_layers": 2}, "4 layers, and the model has 2", id="fewer layers, v2"),
        pytest.param("prefix", {"num_key_value_heads": 4}, r"\[7, 512\], not \[7, 1024\]", id="wider, v2"),
    ],
)
def test_an_adapter_of_another_model_is_refused(
    store: Store,
    base: Path,
    kind: str,
    changes: dict[str, int],
    reason: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    version = publish(store, only_config(base, tmp_path / "base", **changes), "base")

    with pytest.raises(ModelError, match=f"does not fit .*{reason}") as refused:
        require_fit(store, request.getfixturevalue(kind), version)
    assert "\n" not in str(refused.value)
    assert "own base" in str(refused.value)


def test_a_base_that_is_no_model_is_named(store: Store, lora: Path, tmp_path: Path) -> None:
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "config.json").write_text(json.dumps({"model_type": "abacus"}))
    with pytest.raises(ModelError, match=r"config\.json of shop/strange/checkpoint-1 is not that of a language model"):
        require_fit(store, lora, publish(store, tmp_path / "strange", "strange"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "model.safetensors").write_bytes(b"weights")
    with pytest.raises(ModelError, match=r"shop/empty/checkpoint-1 has no config\.json"):
        require_fit(store, lora, publish(store, tmp_path / "empty", "empty"))


def test_an_adapter_without_weights_is_named(store: Store, base: Path, lora: Path, tmp_path: Path) -> None:
    part = shutil.copytree(lora, tmp_path / "part")
    (part / "adapter_model.safetensors").unlink()
    version = publish(store, only_config(base, tmp_path / "base"), "base")
    with pytest.raises(ModelError, match=r"adapter_model\.safetensors"):
        require_fit(store, part, version)
