"""Half precision on processors that have no instructions for it.

torch multiplies bfloat16 and float16 there by emulation, at one speed for each row: a token of one answer takes less
than in float32, as half as many bytes are read, but a prompt, or a token of many answers, several times as long. So
layers with many rows are upcast to float32, from weights that stay as they are: they may be pages that servers share.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import linear

from tunegate.models.network import has_bfloat16

# From so many on upcasting the weights of a layer costs less than emulation: between 12 and 20 on cores with AVX2.
ROWS = 16
_HALF = (torch.bfloat16, torch.float16)


def upcast(model: nn.Module) -> None:
    """Let the linear layers of a model in half precision compute so, where they are on a processor of this kind."""
    if has_bfloat16():
        return
    for layer in model.modules():
        weight = getattr(layer, "weight", None)  # a quantized one has its numbers under other names
        if type(layer) is nn.Linear and weight is not None and weight.dtype in _HALF and weight.device.type == "cpu":
            layer.__class__ = _Upcast


class _Upcast(nn.Linear):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """[..., features] in the weights' precision, as of a linear layer."""
        if input.shape[:-1].numel() < ROWS:
            return super().forward(input)
        bias = None if self.bias is None else self.bias.float()
        return linear(input.float(), self.weight.float(), bias).to(input.dtype)
