"""Layers in half precision on a processor that emulates it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tunegate.serving.engines import upcast as module
from tunegate.serving.engines.upcast import ROWS, upcast


def network(dtype: torch.dtype) -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(64, 48), nn.SiLU(), nn.Linear(48, 32, bias=False)).to(dtype)


@pytest.mark.parametrize("rows", [1, ROWS - 1, ROWS, 5 * ROWS])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_layers_compute_the_same_whatever_the_rows(
    dtype: torch.dtype, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "has_bfloat16", lambda: False)
    plain, changed = network(dtype), network(dtype)
    before = [weight.data_ptr() for weight in changed.parameters()]
    inputs = torch.randn(2, rows, 64).to(dtype)[:1]
    upcast(changed)
    told = changed(inputs)
    assert told.dtype == dtype
    assert torch.allclose(told.float(), plain(inputs).float(), atol=2 * torch.finfo(dtype).eps)
    assert [weight.data_ptr() for weight in changed.parameters()] == before, "other servers may have these pages"


def test_only_layers_with_many_rows_are_computed_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "has_bfloat16", lambda: False)
    computed: list[torch.dtype] = []

    def linear(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        computed.append(weight.dtype)
        return nn.functional.linear(input, weight, bias)

    monkeypatch.setattr(module, "linear", linear)
    changed = network(torch.bfloat16)
    upcast(changed)
    changed(torch.randn(ROWS - 1, 64).to(torch.bfloat16))
    assert computed == []
    changed(torch.randn(ROWS, 64).to(torch.bfloat16))
    assert computed == [torch.float32, torch.float32]


@pytest.mark.parametrize(("able", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_what_needs_no_emulation_stays_as_it_is(
    able: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "has_bfloat16", lambda: able)
    changed = network(dtype)
    upcast(changed)
    assert {type(layer) for layer in changed} == {nn.Linear, nn.SiLU}


def test_a_quantized_layer_which_has_no_weight_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "has_bfloat16", lambda: False)
    changed = network(torch.bfloat16)
    del changed[0].weight
    upcast(changed)
    assert [type(layer) is nn.Linear for layer in changed] == [True, False, False]
