"""What goes into which shard of the weights that ZeRO-3 has divided, and what writing them takes.

test_resume.py has several ranks write them.
"""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

import deepspeed
import pytest
import torch
from safetensors.torch import save_file
from transformers import MixtralConfig, MixtralForCausalLM, Qwen2Config, Qwen2ForCausalLM
from transformers.core_model_loading import Chunk, WeightConverter

from tests.unit.training.alone import world_of_one
from tunegate.training.loop import shards
from tunegate.training.loop.shards import outlines_of, plan_shards, write_shards

# What DeepSpeed and torch think of one another's names.
pytestmark = [pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("DeprecationWarning", "FutureWarning")]
MIB = 1 << 20
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

    planned = plan_shards(model, outlines_of(model, model.state_dict(keep_vars=True)), 50_000)

    written = json.loads((tmp_path / "model.safetensors.index.json").read_bytes())["weight_map"]
    names = [name for shard in planned for name in shard.names]
    assert sorted(names) == sorted(written)
    assert len(planned) > 2


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep what they like")
def test_memory_does_not_grow_from_file_to_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resident = []

    def save(*arguments: Any, **options: Any) -> None:
        resident.append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
        save_file(*arguments, **options)

    monkeypatch.setattr(shards, "save_file", save)
    shape = {**SMALL, "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 18}
    settings: dict[str, Any] = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 3}}
    with world_of_one():
        deepspeed.init_distributed("gloo", auto_mpi_discovery=False)
        with deepspeed.zero.Init(config_dict_or_path=settings, dtype=torch.float32):
            model = Qwen2ForCausalLM(Qwen2Config(**shape))
        optimizer = torch.optim.SGD(model.parameters())
        settings["zero_allow_untested_optimizer"] = True
        engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=settings)
        torch.empty(31 * MIB, dtype=torch.uint8)  # from what is freed at once glibc learns to keep such pieces

        write_shards(engine, tmp_path, 4 * MIB)

    assert len(resident) > 8
    assert max(resident) - resident[0] < 8 * MIB  # of the 72 that the model has


def test_weights_that_a_file_has_as_one_are_not_parted(caplog: pytest.LogCaptureFixture) -> None:
    model = Qwen2ForCausalLM(Qwen2Config(**SMALL))
    parts = ["mlp.gate_proj.weight", "mlp.up_proj.weight"]
    model._weight_conversions = [WeightConverter("mlp.gate_up_proj.weight", parts, operations=[Chunk(dim=0)])]

    (shard,) = plan_shards(model, outlines_of(model, model.state_dict(keep_vars=True)), 20_000)

    assert "model.layers.2.mlp.gate_up_proj.weight" in shard.names
    assert len(shard.weights) == len(shard.names) + SMALL["num_hidden_layers"]
    assert "can't be written in shards" in caplog.text
