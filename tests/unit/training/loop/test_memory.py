from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, Qwen2Config

from tests.unit.training.builders import make_config
from tunegate.training.config import ZERO2, TrainConfig
from tunegate.training.loop.memory import Memory, Traced, Zero, _Alive, memory_of, trace
from tunegate.training.loop.methods import add_method
from tunegate.training.loop.mfu import Work

SHAPE = Qwen2Config(
    hidden_size=64,
    intermediate_size=192,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=300,
)
# 7.5 G parameters, all trained: the model of the paper's figure 1. A step takes nothing there.
PAPER = Traced(7_500_000_000, 7_500_000_000, Work(1, 1, 1, 1, 1, 1), kept={False: 0, True: 0})


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    return make_config(None, tmp_path, tmp_path / "run", cutoff_len=128, per_device_train_batch_size=4, bf16="false")


def _with(config: TrainConfig, **settings: Any) -> TrainConfig:
    return type(config)(**{**{name: getattr(config, name) for name in config.__struct_fields__}, **settings})


@pytest.mark.parametrize(("stage", "gigabytes"), [(0, 120), (1, 31.4), (2, 16.6), (3, 1.9)])
def test_weights_gradients_and_optimizer_are_as_the_paper_of_zero_says(
    config: TrainConfig, stage: int, gigabytes: float
) -> None:
    memory = memory_of(PAPER, Zero(stage, 0, 0), 64, _with(config, bf16="true"), recomputes=False)

    assert (memory.weights + memory.gradients + memory.optimizer) / 1e9 == pytest.approx(gigabytes, abs=0.06)


@pytest.mark.parametrize("recomputes", [False, True])
@pytest.mark.parametrize("kind", ["full", "lora", "freeze"])
def test_a_step_takes_what_one_with_numbers_takes(config: TrainConfig, kind: Any, recomputes: bool) -> None:
    config = _with(config, finetuning_type=kind)
    torch.manual_seed(0)
    model = add_method(AutoModelForCausalLM.from_config(SHAPE, attn_implementation="sdpa"), config).train()
    if recomputes:
        model.activation_checkpointing_enable()
    tokens = torch.randint(300, (4, 128))
    with _Alive(model) as alive:
        logits = model(input_ids=tokens, use_cache=False).logits.float()
        loss = cross_entropy(logits.flatten(0, 1), tokens.flatten())
        del logits
        torch.autograd.backward(loss)
    gradients = sum(weight.grad.nbytes for weight in model.parameters() if weight.grad is not None)

    traced = trace(config, SHAPE, on_cpu=True)

    predicted = traced.kept[recomputes]
    assert alive.peak - gradients <= predicted * 1.02
    assert predicted <= alive.peak * 1.05


@pytest.mark.parametrize("kind", ["lora", "p_tuning_v2"])
def test_one_way_alone_is_traced_as_beside_the_other(config: TrainConfig, kind: Any) -> None:
    config = _with(config, finetuning_type=kind)

    both, alone = trace(config, SHAPE), trace(config, SHAPE, recomputes=(True,))

    assert alone.kept == {True: both.kept[True]}
    assert (both.kept[True] < both.kept[False]) == (kind == "lora")


def test_half_precision_takes_half_of_what_is_kept_in_it(config: TrainConfig) -> None:
    whole, half = trace(config, SHAPE), trace(_with(config, bf16="true"), SHAPE)

    assert whole.parameters == half.parameters == whole.trained
    assert 0.5 < half.kept[False] / whole.kept[False] < 0.75  # norms and the loss are in single precision


def test_what_a_deepspeed_file_says_of_memory_is_read() -> None:
    assert Zero.of({"zero_optimization": {"stage": 2, "reduce_bucket_size": 2e8}}) == Zero(2, 200_000_000)
    offloaded = {"stage": 3, "offload_param": {"device": "cpu"}, "offload_optimizer": {"device": "none"}}
    assert Zero.of({"zero_optimization": {**offloaded, "reduce_bucket_size": "auto"}}) == Zero(3, offloads_weights=True)
    assert Zero.of({}) == Zero(0)
    assert ZERO2.is_file()


def test_what_is_offloaded_lies_in_the_hosts_memory(config: TrainConfig) -> None:
    settings = _with(config, bf16="true", optim="adamw_8bit")
    offloaded = Zero(3, 0, 0, offloads_optimizer=True, offloads_weights=True)

    memory = memory_of(PAPER, offloaded, 8, settings, recomputes=False)

    each = 7_500_000_000 / 8
    assert memory == Memory(0, 2 * each, 0, 0, 4 * each, host=(2 + 4 + 2) * each)
    frozen = _with(settings, stage="dpo", finetuning_type="full")
    assert memory_of(PAPER, Zero(2), 8, frozen, recomputes=False).weights == 2 * 2 * 7_500_000_000
