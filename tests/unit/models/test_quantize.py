from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from tests.adapters import make_prompt
from tunegate.api.errors import ModelError
from tunegate.models import check_folder
from tunegate.models.merge import merge_adapter
from tunegate.models.quantize import quantize

LAYER = "model.layers.0.mlp.down_proj"


@pytest.fixture(scope="module")
def original(tiny: Path) -> torch.Tensor:
    return load_file(tiny / "model.safetensors")[f"{LAYER}.weight"]


@torch.no_grad()
def test_int8_says_nearly_the_same_in_far_fewer_bytes(tiny: Path, tmp_path: Path) -> None:
    result = quantize(tiny, tmp_path / "int8", "int8")

    check_folder(tmp_path / "int8")
    ids = AutoTokenizer.from_pretrained(tmp_path / "int8")("How much is the kettle?", return_tensors="pt")
    wanted = AutoModelForCausalLM.from_pretrained(tiny)(**ids).logits
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "int8")(**ids).logits
    assert 0 < (found - wanted).norm() / wanted.norm() < 0.03
    assert result.bytes_now == (tmp_path / "int8" / "model.safetensors").stat().st_size < result.bytes_before / 3


def test_int8_is_stored_to_half_a_step_of_each_channel(tiny: Path, original: torch.Tensor, tmp_path: Path) -> None:
    quantize(tiny, tmp_path / "int8", "int8")

    stored = load_file(tmp_path / "int8" / "model.safetensors")
    step = stored[f"{LAYER}.weight_scale"]
    steps = stored[f"{LAYER}.weight_packed"].view(torch.uint8).int() - 128
    assert step.shape == (len(original), 1)
    assert ((steps * step - original).abs() <= step * 0.501).all()
    assert "model.embed_tokens.weight" in stored


def test_int4_is_stored_to_half_a_step_of_each_group(tiny: Path, original: torch.Tensor, tmp_path: Path) -> None:
    result = quantize(tiny, tmp_path / "int4", "int4")

    stored = load_file(tmp_path / "int4" / "model.safetensors")
    step = stored[f"{LAYER}.weight_scale"].repeat_interleave(128, dim=1)
    pairs = stored[f"{LAYER}.weight_packed"].view(torch.uint8).int()
    steps = torch.stack([pairs & 15, pairs >> 4], dim=-1).flatten(-2) - 8
    # the greatest positive weight has one step less: 4 bits hold -8..7
    assert ((steps * step - original).abs() <= step * 0.501).all()
    assert 0.05 < result.error < 0.15


def test_fp8_is_stored_to_the_precision_of_its_numbers(tiny: Path, original: torch.Tensor, tmp_path: Path) -> None:
    quantize(tiny, tmp_path / "fp8", "fp8")

    stored = load_file(tmp_path / "fp8" / "model.safetensors")
    weight, scale = stored[f"{LAYER}.weight"], stored[f"{LAYER}.weight_scale"]
    assert weight.dtype == torch.float8_e4m3fn
    # 3 bits after the point: half of an eighth, and the smallest numbers' own step
    assert ((weight.float() * scale - original).abs() <= original.abs() / 16 + scale * 2**-10).all()
    inputs = AutoConfig.from_pretrained(tmp_path / "fp8").quantization_config["config_groups"]["group_0"]
    assert (inputs["input_activations"]["dynamic"], inputs["input_activations"]["strategy"]) == (True, "token")


def test_the_same_folder_gives_the_same_bytes(tiny: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        quantize(tiny, tmp_path / name, "int4")

    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two


@pytest.mark.parametrize("method", ["int8", "int4", "fp8"])
def test_what_is_said_about_text_stays(tiny: Path, method: str, tmp_path: Path) -> None:
    quantize(tiny, tmp_path / method, method)

    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (tmp_path / method / name).read_bytes() == (tiny / name).read_bytes()
    settings = [json.loads((folder / "generation_config.json").read_bytes()) for folder in (tiny, tmp_path / method)]
    assert settings[0] == settings[1]


def test_a_quantized_model_is_not_quantized_or_merged_into(tiny: Path, adapter: Path, tmp_path: Path) -> None:
    quantize(tiny, tmp_path / "int8", "int8")

    with pytest.raises(ModelError, match="is quantized; quantize the one it was made from"):
        quantize(tmp_path / "int8", tmp_path / "again", "int4")
    with pytest.raises(ModelError, match="merge into the one it was made from"):
        merge_adapter(tmp_path / "int8", adapter, tmp_path / "merged")


def test_int4_refuses_widths_that_no_group_divides(tiny: Path, tmp_path: Path) -> None:
    config = AutoConfig.from_pretrained(tiny)
    config.intermediate_size = 250
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "odd")

    with pytest.raises(ModelError, match="use --method int8"):
        quantize(tmp_path / "odd", tmp_path / "int4", "int4")
    quantize(tmp_path / "odd", tmp_path / "int8", "int8")
    AutoModelForCausalLM.from_pretrained(tmp_path / "int8")


def test_the_head_of_a_p_tuned_model_keeps_its_type(tiny: Path, tmp_path: Path) -> None:
    folder = merge_adapter(tiny, make_prompt(tiny, tmp_path / "adapter"), tmp_path / "whole")
    quantize(folder, tmp_path / "int8", "int8")

    head = load_file(tmp_path / "int8" / "model.safetensors")["lm_head.weight"]
    torch.testing.assert_close(head, load_file(folder / "model.safetensors")["lm_head.weight"])
