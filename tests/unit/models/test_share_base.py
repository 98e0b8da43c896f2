"""A LoRA beside its base: what is computed with both is what the merged model computes, and the base's file is one."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.adapters import make_lora, make_untied
from tunegate.models import check_folder
from tunegate.models.adapters import under_lora
from tunegate.models.materialize import BESIDE, MERGED, on_base
from tunegate.models.network import load_network
from tunegate.models.prompt_tuning import has_lora

TOKENS = torch.arange(3, 99).reshape(4, 24)
PLAIN = {
    "one module": {"target_modules": ["q_proj"]},
    "every layer": {"target_modules": "all-linear"},
    "embeddings": {"target_modules": ["embed_tokens", "v_proj"]},
    "some layers": {"target_modules": ["up_proj", "o_proj"], "layers_to_transform": [1]},
    "ranks of their own": {
        "target_modules": ["q_proj", "k_proj"],
        "rank_pattern": {"q_proj": 2},
        "alpha_pattern": {"k_proj": 3},
        "use_rslora": True,
    },
}
MORE = {
    "a trained head": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "tokens": {"target_modules": ["q_proj"], "trainable_token_indices": [5, 6]},
    "DoRA": {"target_modules": ["q_proj"], "use_dora": True},
    "biases": {"target_modules": ["q_proj"], "bias": "all"},
}


@torch.no_grad()
def logprobs(folder: Path) -> torch.Tensor:
    network: Any = load_network(folder, torch.float32)
    if has_lora(folder):
        network = under_lora(network, folder)
    found: torch.Tensor = network(input_ids=TOKENS).logits.log_softmax(-1)
    return found


def both(base: Path, adapter: Path) -> tuple[Path, Path]:
    """The adapter beside its base where that can be, and merged."""
    place = adapter.with_name("served")
    return on_base(adapter, place, lambda: base, share_base=True), on_base(adapter, place, lambda: base)


@pytest.mark.parametrize("settings", PLAIN.values(), ids=PLAIN)
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_a_lora_beside_its_base_computes_what_it_computes_merged(
    base: Path, tmp_path: Path, settings: dict[str, Any], tied: bool
) -> None:
    base = base if tied else make_untied(base, tmp_path / "base")
    beside, merged = both(base, make_lora(base, tmp_path / "adapter", **settings))

    check_folder(beside)
    assert beside.name.endswith(BESIDE)
    assert (beside / "model.safetensors").samefile(base / "model.safetensors")
    torch.testing.assert_close(logprobs(beside), logprobs(merged), atol=1e-3, rtol=0)
    assert (logprobs(beside) - logprobs(base)).abs().max() > 0.1


@pytest.mark.parametrize("settings", MORE.values(), ids=MORE)
def test_a_lora_that_changes_more_than_its_layers_is_merged_and_the_log_says_why(
    base: Path, tmp_path: Path, settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    adapter = make_lora(base, tmp_path / "adapter", **settings)
    with caplog.at_level(logging.WARNING, "tunegate"):
        folder, merged = both(base, adapter)
    assert folder == merged
    assert folder.name.endswith(MERGED)
    (said,) = caplog.records
    assert vars(said)["reason"] == f"it has {[*settings][-1]}"


def test_a_soft_prompt_is_merged_and_a_prefix_lies_beside_its_base_in_any_case(
    base: Path, prompt: Path, prefix: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "tunegate"):
        for number, adapter in enumerate((prompt, prefix)):
            place = tmp_path / str(number)
            folder = on_base(adapter, place, lambda: base, share_base=True)
            assert folder == on_base(adapter, place, lambda: base)
    (said,) = caplog.records
    assert vars(said)["reason"] == "its soft prompt becomes tokens of the vocabulary"


def test_a_base_that_was_replaced_is_found_and_linked_anew(base: Path, tmp_path: Path) -> None:
    adapter = make_lora(base, tmp_path / "adapter", target_modules=["q_proj"])
    old = make_untied(base, tmp_path / "old")
    folder = on_base(adapter, tmp_path / "served", lambda: old, share_base=True)
    (old / "model.safetensors").unlink()

    assert on_base(adapter, tmp_path / "served", lambda: base, share_base=True) == folder
    assert (folder / "model.safetensors").samefile(base / "model.safetensors")
