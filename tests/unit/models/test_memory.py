from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from tests.adapters import make_lora
from tunegate.api.errors import ModelError, ServingError
from tunegate.models.cards import read_card
from tunegate.models.memory import Footprint, check, choose_parallel, misfit, visible_gpus

# Qwen-14B-Chat as its config.json and files say: 28.3 GB in half precision, 40 layers of 40 heads of 128.
QWEN = Footprint(weights=28_300_000_000, token=2 * 40 * 40 * 128 * 2, heads=40)
A10 = 23_028 * 2**20


def model(folder: Path, **config: Any) -> Footprint:
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model-1.safetensors").write_bytes(b"x" * 1000)
    (folder / "model-2.safetensors").write_bytes(b"x" * 500)
    return Footprint.of(folder)


def test_the_files_say_how_large_a_model_is(tmp_path: Path) -> None:
    shape = {"num_hidden_layers": 3, "num_attention_heads": 8, "hidden_size": 64}

    assert model(tmp_path, **shape) == Footprint(1500, 2 * 3 * 8 * 8 * 2, 8, rounded=1500, adapter=3 * 8 * 64 * 2)
    assert model(tmp_path, **shape, vocab_size=10).rounded == 1500 - 10 * 64 * 2
    assert model(tmp_path, **shape, quantization_config={}).rounded == 0
    assert model(tmp_path, **shape, num_key_value_heads=2, head_dim=16).token == 2 * 3 * 2 * 16 * 2
    assert model(tmp_path, text_config=shape).token == 2 * 3 * 8 * 8 * 2
    with pytest.raises(ModelError, match="how large"):
        model(tmp_path, hidden_size=64)


def test_an_adapter_on_every_linear_layer_is_as_large_as_peft_makes_it(base: Path, tmp_path: Path) -> None:
    make_lora(base, tmp_path / "adapter", target_modules="all-linear")  # of rank 4, in 32 bits
    weights = load_file(tmp_path / "adapter" / "adapter_model.safetensors").values()
    footprint = Footprint.of(base)

    assert footprint.with_adapters(1, 4).weights - footprint.weights == sum(weight.nbytes for weight in weights) / 2
    assert footprint.with_adapters(3, 8).weights - footprint.weights == 3 * sum(weight.nbytes for weight in weights)


def test_what_does_not_fit_is_told_with_what_would() -> None:
    a10, t4 = read_card("A10"), read_card("16GiB")
    whole = replace(QWEN, rounded=25_000_000_000)
    assert [misfit(whole, a10, gpus) for gpus in (2, 3, 4)] == ["", "", ""]
    assert misfit(whole, a10, 1) == (
        "does not fit: its weights take 26.4 GiB of each of 1 A10 with 22.5 GiB, which leaves too little for a "
        "conversation of 2048 tokens; it would fit on 2 of them, or on 1 in int8 (tunegate quantize --method int8)"
    )
    assert misfit(whole, t4, 1).endswith(
        "; it would fit on 4 of them, or on 1 in int4 (tunegate quantize --method int4)"
    )
    assert misfit(QWEN, t4, 1).endswith("; it would fit on 4 of them")
    assert misfit(replace(QWEN, heads=1), t4, 8).endswith("; nor would it on 32 of them; take larger ones")


def test_two_a10_hold_qwen_14b_and_one_does_not() -> None:
    assert check(QWEN, [A10, A10], 2) == (
        "weights take 13.2 GiB of each of 2 GPUs with 22.5 GiB, which leaves room for conversations of about "
        "14,578 tokens in all"
    )
    with pytest.raises(ServingError, match=r"can't fit.*26\.4 GiB of each of 1 GPUs.*--quantization int4"):
        check(QWEN, [A10], 1)
    check(Footprint(QWEN.weights // 3, QWEN.token, 40), [A10], 1)
    with pytest.raises(ServingError, match="needs as many GPUs; there are 1"):
        check(QWEN, [A10], 2)
    assert "nvidia-smi does not say" in check(QWEN, [], 2)


@pytest.mark.parametrize(
    ("gpus", "asked", "parallel"), [(0, None, 1), (1, None, 1), (2, None, 2), (3, None, 2), (8, None, 8), (8, 4, 4)]
)
def test_a_model_is_spread_over_all_gpus_that_its_heads_divide_by(gpus: int, asked: int | None, parallel: int) -> None:
    assert choose_parallel(QWEN, [A10] * gpus, asked) == parallel


def test_gpus_are_those_that_nvidia_smi_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    assert visible_gpus() == []

    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\n[ "$3 $4" = "-i 1,0" ] && printf "23028\\n23028\\n"\n')
    program.chmod(0o755)
    assert visible_gpus() == [A10, A10]
