from __future__ import annotations

import numpy as np
import pytest
import torch
from peft import LoraConfig, PrefixTuningConfig, PromptEncoderConfig, get_peft_model
from transformers import Qwen2Config, Qwen2ForCausalLM

from tunegate.training.data.tokenize import IGNORED, Example
from tunegate.training.loop.methods import freeze
from tunegate.training.loop.mfu import (
    Reading,
    Work,
    flops_per_token,
    peak_flops,
    reading_of,
    work_of,
)

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # by peft
# Of one layer: queries and output 8x8, keys and values 8x4, three matrices of the MLP 8x16.
LAYER = 2 * 8 * 8 + 2 * 8 * 4 + 3 * 8 * 16
HEAD = 8 * 40
LAYERS = 3


def _example(length: int, *, trained: int) -> Example:
    labels = np.ones(length, np.int32)
    labels[: length - trained] = IGNORED
    return Example(np.ones(length, np.int32), labels)


def _model(*, tied: bool = True) -> Qwen2ForCausalLM:
    shape = Qwen2Config(
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=40,
        tie_word_embeddings=tied,
    )
    return Qwen2ForCausalLM(shape)


@pytest.mark.parametrize("tied", [True, False])
def test_a_look_up_of_embeddings_is_no_work_and_the_head_is(tied: bool) -> None:
    work = work_of(_model(tied=tied))

    everything = LAYERS * LAYER
    assert work == Work(everything, HEAD, everything, everything, HEAD, attention=LAYERS * 8)


def test_gradients_flow_through_no_layer_below_those_that_are_trained() -> None:
    model = _model()
    freeze(model, layers=1, modules="mlp")

    work = work_of(model)

    assert (work.body_backward, work.body_trained, work.head_trained) == (LAYER, 3 * 8 * 16, 0)


def test_an_adapter_needs_gradients_through_all_and_of_its_own() -> None:
    work = work_of(get_peft_model(_model(), LoraConfig(r=2, target_modules=["q_proj"])))

    adapter = LAYERS * 2 * (8 + 8)
    assert (work.body, work.body_backward, work.body_trained) == (LAYERS * LAYER + adapter,) * 2 + (adapter,)


@pytest.mark.parametrize(
    "settings",
    [
        PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=2, encoder_hidden_size=8),
        PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2),
    ],
    ids=["p_tuning", "p_tuning_v2"],
)
def test_learned_prompts_need_gradients_through_all_layers(settings: PromptEncoderConfig | PrefixTuningConfig) -> None:
    work = work_of(get_peft_model(_model(), settings))

    everything = LAYERS * LAYER
    assert work == Work(everything, HEAD, everything, 0, 0, attention=LAYERS * 8)


@pytest.mark.parametrize(
    ("work", "reading", "flops"),
    [
        (Work(1000, 0, 1000, 1000, 0, attention=0), Reading(512, 1), 6 * 1000),
        (Work(1000, 0, 1000, 0, 0, attention=0), Reading(512, 1), 4 * 1000),
        (Work(1000, 0, 250, 100, 0, attention=0), Reading(512, 1), 2 * (1000 + 250 + 100)),
        (Work(1000, 400, 1000, 1000, 400, attention=0), Reading(512, 0.25), 6 * (1000 + 100)),
        (Work(1000, 400, 1000, 0, 0, attention=0), Reading(512, 0.25), 4 * (1000 + 100)),
        (Work(1000, 0, 1000, 1000, 0, attention=64), Reading(512, 1), 6 * 1000 + 6 * 64 * 512),
        (Work(1000, 0, 500, 500, 0, attention=64), Reading(512, 1), 2 * (1000 + 500 + 500) + 4 * 64 * 512),
    ],
    ids=["all", "frozen", "last layers", "head of a quarter", "frozen head", "attention", "attention of half"],
)
def test_what_one_token_costs(work: Work, reading: Reading, flops: float) -> None:
    assert flops_per_token(work, reading) == flops


def test_a_long_dialogue_weighs_by_its_tokens() -> None:
    short, long = _example(10, trained=2), _example(30, trained=15)

    assert reading_of([short, long]) == Reading(context=25.0, trained=17 / 40)
    assert reading_of([(short, long)]) == Reading(context=25.0, trained=17 / 40), "packed"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_a_cpu_can_do_is_measured(dtype: torch.dtype) -> None:
    peak = peak_flops(torch.device("cpu"), dtype)

    assert peak is not None
    assert 1e8 < peak < 1e14
