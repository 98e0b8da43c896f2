"""Attention by dialogue gives what transformers' own attention gives under the mask of a packed row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma3TextConfig, MistralConfig, PreTrainedConfig, Qwen2Config

from tunegate.training.data.tokenize import Example
from tunegate.training.loop.attention import BY_DIALOGUE
from tunegate.training.loop.batches import Collator

SHAPE = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
LENGTHS = ((7, 12, 1, 5), (9, 4))


def _batch() -> dict[str, torch.Tensor]:
    dice = np.random.default_rng(0)
    rows = [tuple(Example(ids, ids) for n in row for ids in [dice.integers(1, 64, n)]) for row in LENGTHS]
    batch = Collator(0, apart=True)(rows)
    return {name: batch[name] for name in ("input_ids", "position_ids", "cu_seq_lens_q")}


def _answer(config: PreTrainedConfig, attention: str) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The logits of the batch, and the gradients of their sum of squares."""
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=torch.float32)
    logits = model(**_batch(), use_cache=False).logits
    logits.square().sum().backward()
    return logits.detach(), {name: one.grad for name, one in model.named_parameters()}


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(Qwen2Config(**SHAPE), id="fewer keys than queries"),
        pytest.param(MistralConfig(**SHAPE, sliding_window=4), id="sliding window"),
        pytest.param(
            Gemma3TextConfig(**SHAPE, sliding_window=4, layer_types=["sliding_attention", "full_attention"]),
            id="windows in some layers",
        ),
    ],
)
def test_dialogue_by_dialogue_is_as_under_a_mask(config: PreTrainedConfig) -> None:
    logits, gradients = _answer(config, BY_DIALOGUE)
    wanted, wanted_gradients = _answer(config, "sdpa")

    torch.testing.assert_close(logits, wanted, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(gradients, wanted_gradients, atol=1e-4, rtol=1e-4)
