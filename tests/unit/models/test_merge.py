"""A merged adapter computes what was trained, whatever the adapter changes; what can't be merged so is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from tests.adapters import make_lora, make_prefix, make_untied, tuned
from tunegate.api.errors import ModelError
from tunegate.models.adapters import with_adapter
from tunegate.models.merge import _require_same, merge_adapter
from tunegate.models.quantize import quantize

WEIGHTS = "adapter_model.safetensors"
IDS = torch.tensor([[5, 300, 7, 8, 258, 257, 301]])


@pytest.fixture(scope="module")
def untied(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_untied(tiny, tmp_path_factory.mktemp("untied") / "model")


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model(input_ids=IDS).logits
    return found


def load(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


ADAPTERS = {
    "all linear layers": {"target_modules": "all-linear"},
    "attention and the head": {"target_modules": ["q_proj", "v_proj", "lm_head"]},
    "the head alone": {"target_modules": ["lm_head"]},
    "the embeddings": {"target_modules": ["embed_tokens"]},
    "the head and the embeddings": {"target_modules": ["embed_tokens", "lm_head"]},
    "both, tied": {"target_modules": ["embed_tokens", "lm_head"], "ensure_weight_tying": True},
    "the head is saved": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "the embeddings are saved": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    "both are saved": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
    "one is saved, the other adapted": {"target_modules": ["lm_head"], "modules_to_save": ["embed_tokens"]},
    "some tokens": {"target_modules": ["q_proj"], "trainable_token_indices": [5, 300]},
    "ranks and alphas by pattern": {
        "target_modules": ["q_proj", "v_proj", "lm_head"],
        "rank_pattern": {"q_proj": 2, "lm_head": 8},
        "alpha_pattern": {"v_proj": 64, "lm_head": 3},
    },
    "DoRA": {"target_modules": ["q_proj", "lm_head"], "use_dora": True},
    "rsLoRA": {"target_modules": ["q_proj", "lm_head"], "use_rslora": True},
    "biases": {"target_modules": ["q_proj", "v_proj"], "bias": "all"},
}


@pytest.mark.filterwarnings("ignore::UserWarning:peft")
@pytest.mark.parametrize("head", ["tied", "untied"])
@pytest.mark.parametrize("settings", ADAPTERS.values(), ids=ADAPTERS.keys())
def test_a_merged_model_computes_what_was_trained(
    tiny: Path, untied: Path, head: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    base = tiny if head == "tied" else untied
    adapter = make_lora(base, tmp_path / "adapter", **settings)

    merged = merge_adapter(base, adapter, tmp_path / "merged")

    found = logits(load(merged))
    torch.testing.assert_close(found, logits(tuned(base, adapter)), atol=1e-3, rtol=0)
    assert not torch.allclose(found, logits(load(base)), atol=1e-2)


@pytest.mark.parametrize(
    ("target", "is_tied"), [pytest.param("q_proj", True, id="kept"), pytest.param("lm_head", False, id="untied")]
)
def test_a_head_is_untied_only_where_it_was_trained_apart(
    tiny: Path, target: str, is_tied: bool, tmp_path: Path
) -> None:
    adapter = make_lora(tiny, tmp_path / "adapter", target_modules=[target])

    merged = merge_adapter(tiny, adapter, tmp_path / "merged")

    assert AutoConfig.from_pretrained(merged).tie_word_embeddings is is_tied
    stored = load_file(merged / "model.safetensors")
    assert ("lm_head.weight" not in stored) is is_tied
    base = load_file(tiny / "model.safetensors")
    torch.testing.assert_close(stored["model.embed_tokens.weight"], base["model.embed_tokens.weight"], atol=0, rtol=0)


def test_a_head_in_bfloat16_is_merged_to_its_precision(tiny: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.bfloat16).save_pretrained(base)
    AutoTokenizer.from_pretrained(tiny).save_pretrained(base)
    adapter = make_lora(base, tmp_path / "adapter", target_modules=["q_proj", "lm_head"])

    merged = merge_adapter(base, adapter, tmp_path / "merged")

    assert AutoConfig.from_pretrained(merged).dtype == torch.bfloat16
    wanted = logits(tuned(base, adapter))
    assert (logits(load(merged)) - wanted).abs().max() < wanted.abs().max() * 2**-7


def test_an_adapter_of_another_architecture_is_refused(tiny: Path, adapter: Path, tmp_path: Path) -> None:
    other = changed(adapter, tmp_path, lambda key: key.replace("self_attn.", "attn."))

    with pytest.raises(ModelError, match=r"does not fit its base model: it has .*\.attn\..* which the model has no"):
        merge_adapter(tiny, other, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_an_adapter_of_a_deeper_model_is_refused(tiny: Path, tmp_path: Path) -> None:
    config = AutoConfig.from_pretrained(tiny)
    config.num_hidden_layers, config.layer_types = 6, config.layer_types[:1] * 6
    deep = tmp_path / "deep"
    AutoModelForCausalLM.from_config(config).save_pretrained(deep)
    AutoTokenizer.from_pretrained(tiny).save_pretrained(deep)

    with pytest.raises(ModelError, match=r"does not fit its base model: it has .*layers\.4\."):
        merge_adapter(tiny, make_lora(deep, tmp_path / "a", target_modules="all-linear"), tmp_path / "merged")
    with pytest.raises(ModelError, match=r"does not fit its base model: it lacks .*layers\.4\."):
        merge_adapter(deep, make_lora(tiny, tmp_path / "b", target_modules="all-linear"), tmp_path / "merged")


def test_an_adapter_with_half_of_its_weights_is_refused(tiny: Path, adapter: Path, tmp_path: Path) -> None:
    half = changed(adapter, tmp_path, lambda key: None if "lora_B" in key else key)

    with pytest.raises(ModelError, match=r"it lacks .*lora_B.*publish the whole adapter"):
        merge_adapter(tiny, half, tmp_path / "merged")


def test_an_adapter_without_a_module_it_should_save_is_refused(tiny: Path, tmp_path: Path) -> None:
    whole = make_lora(tiny, tmp_path / "whole", target_modules=["q_proj"], modules_to_save=["lm_head"])
    part = changed(whole, tmp_path, lambda key: None if "lm_head" in key else key)

    with pytest.raises(ModelError, match=r"it lacks .*lm_head"):
        merge_adapter(tiny, part, tmp_path / "merged")


def test_a_prefix_of_a_deeper_model_is_refused(tiny: Path, tmp_path: Path) -> None:
    prefix = make_prefix(tiny, tmp_path / "prefix")
    config = AutoConfig.from_pretrained(tiny)
    config.num_hidden_layers, config.layer_types = 2, config.layer_types[:1] * 2

    with pytest.raises(ModelError, match="does not fit its base model: it is for 4 layers, and the model has 2"):
        with_adapter(AutoModelForCausalLM.from_config(config), prefix)


def test_an_adapter_that_works_at_times_is_refused(tiny: Path, tmp_path: Path) -> None:
    """An activated LoRA works only after certain tokens: no plain model can do that."""
    adapter = make_lora(
        tiny, tmp_path / "adapter", target_modules=["q_proj", "v_proj"], alora_invocation_tokens=[1990, 1991, 1992]
    )

    with pytest.raises(ModelError, match="can't be merged: aLoRA does not support merging"):
        merge_adapter(tiny, adapter, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_folder_that_lacks_weights_is_neither_merged_into_nor_quantized(
    tiny: Path, adapter: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny, base)
    weights = load_file(base / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    lacks = r"lacks weights, such as model\.layers\.1\.mlp\.up_proj\.weight"

    with pytest.raises(ModelError, match=lacks):
        merge_adapter(base, adapter, tmp_path / "merged")
    with pytest.raises(ModelError, match=lacks):
        quantize(base, tmp_path / "int8", "int8")


def test_logits_apart_by_more_than_the_bound_are_refused() -> None:
    wanted = torch.tensor([[1.0, -20.0, torch.nan]])
    _require_same(wanted, wanted + 0.019, 3, Path("adapter"))

    with pytest.raises(ModelError, match=r"differ by 0\.021, where the greatest is 20 and 0\.001 of it is allowed"):
        _require_same(wanted, wanted + 0.021, 3, Path("adapter"))
    with pytest.raises(ModelError, match="differ by nan"):
        _require_same(wanted[:, :2], wanted[:, 1:], 2, Path("adapter"))


def changed(adapter: Path, folder: Path, rename: Any) -> Path:
    """The adapter with other names of its weights; those that become None are gone."""
    shutil.copytree(adapter, folder / "changed")
    weights = load_file(adapter / WEIGHTS)
    kept = {name: weight for key, weight in weights.items() if (name := rename(key))}
    save_file(kept, folder / "changed" / WEIGHTS, metadata={"format": "pt"})
    return folder / "changed"
