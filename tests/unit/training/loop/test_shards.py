"""What goes into which shard of the weights that ZeRO-3 has divided; test_resume.py has ranks write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import MixtralConfig, MixtralForCausalLM, Qwen2Config, Qwen2ForCausalLM
from transformers.core_model_loading import Chunk, WeightConverter

from tunegate.training.loop.shards import outlines_of, plan_shards

SMALL: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
SMALL |= {"num_key_value_heads": 2, "vocab_size": 100}


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(Qwen2ForCausalLM(Qwen2Config(**SMALL, tie_word_embeddings=True)), id="tied"),
        pytest.param(Qwen2ForCausalLM(Qwen2Config(**SMALL, tie_word_embeddings=False)), id="untied"),
        pytest.param(MixtralForCausalLM(MixtralConfig(**SMALL, num_local_experts=4)), id="experts"),
    ],
)
def test_every_weight_of_a_file_is_in_one_shard_under_the_name_that_transformers_reads(
    model: Any, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path, max_shard_size=50_000)

    shards = plan_shards(model, outlines_of(model, model.state_dict(keep_vars=True)), 50_000)

    written = json.loads((tmp_path / "model.safetensors.index.json").read_bytes())["weight_map"]
    names = [name for shard in shards for name in shard.names]
    assert sorted(names) == sorted(written)
    assert len(shards) > 2


def test_weights_that_a_file_has_as_one_are_not_parted(caplog: pytest.LogCaptureFixture) -> None:
    model = Qwen2ForCausalLM(Qwen2Config(**SMALL))
    parts = ["mlp.gate_proj.weight", "mlp.up_proj.weight"]
    model._weight_conversions = [WeightConverter("mlp.gate_up_proj.weight", parts, operations=[Chunk(dim=0)])]

    (shard,) = plan_shards(model, outlines_of(model, model.state_dict(keep_vars=True)), 20_000)

    assert "model.layers.2.mlp.gate_up_proj.weight" in shard.names
    assert len(shard.weights) == len(shard.names) + SMALL["num_hidden_layers"]
    assert "can't be written in shards" in caplog.text
