"""Model FLOPs utilization: how much of what the devices can compute went into work that the model can't do without.

Padding, recomputed layers and communication don't count as work.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn

from tunegate.models.cards import known_card
from tunegate.training.data.tokenize import IGNORED, Example

_LAYER = re.compile(r"\.(\d+)\.")
_SIDES = (128, 256, 512, 1024)
_LONG = 0.05  # seconds


@dataclass(frozen=True)
class Work:
    """Weights that a token is multiplied by: below the head, and in it.

    body, head: all of them.
    body_backward: those through which gradients flow: from the first layer on that holds something trained.
    body_trained, head_trained: those that have gradients themselves.
    attention: width of all heads, summed over the layers.
    """

    body: int
    head: int
    body_backward: int
    body_trained: int
    head_trained: int
    attention: int


@dataclass(frozen=True)
class Reading:
    """What is read: the length of the dialogue a token stands in, on average over tokens, and the share trained."""

    context: float
    trained: float


def flops_per_token(work: Work, reading: Reading) -> float:
    """Floating-point operations that one token needs, forward and backward.

    Per weight 2 forward, 2 for the gradient of what went in, and 2 for its own gradient: 6N where all are trained, 4N
    through frozen ones (Kaplan et al. 2020, appendix B; Chowdhery et al. 2022, "PaLM", appendix B). The head is needed
    where a token is trained. Attention takes 4 x width x context forward and twice that backward in those papers; half
    of it here, because a token looks back only.
    """
    forward = work.body + work.head * reading.trained
    backward = work.body_backward + work.head * reading.trained
    trained = work.body_trained + work.head_trained * reading.trained
    attention = work.attention * reading.context * (1 + 2 * work.body_backward / work.body)
    return 2 * (forward + backward + trained) + 2 * attention


def work_of(model: Any) -> Work:
    """Of a dense decoder, as it is trained: with adapters, frozen parts, or split by ZeRO-3."""
    head = {id(module) for module in model.get_output_embeddings().modules()}
    modules = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    tops = [module.weight for _, module in modules if id(module) in head]
    # An encoder of prompts runs once for each row, not for each token.
    body = [
        (name, module.weight) for name, module in modules if id(module) not in head and "prompt_encoder" not in name
    ]
    first = min((_layer(name) for name, weight in model.named_parameters() if weight.requires_grad), default=0)
    settings = model.config.get_text_config()
    width = getattr(settings, "head_dim", None) or settings.hidden_size // settings.num_attention_heads
    return Work(
        body=_size(weight for _, weight in body),
        head=_size(tops),
        body_backward=_size(weight for name, weight in body if _layer(name) >= first),
        body_trained=_size(weight for _, weight in body if weight.requires_grad),
        head_trained=_size(weight for weight in tops if weight.requires_grad),
        attention=settings.num_hidden_layers * settings.num_attention_heads * width,
    )


def reading_of(rows: Iterable[Example | tuple[Example, ...]]) -> Reading:
    """Of rows of one dialogue, or of several that don't see each other."""
    examples = [example for row in rows for example in (row if isinstance(row, tuple) else (row,))]
    lengths = np.array([len(example.input_ids) for example in examples])
    trained = sum(int(np.count_nonzero(np.asarray(example.labels) != IGNORED)) for example in examples)
    return Reading(context=float((lengths**2).sum() / lengths.sum()), trained=float(trained / lengths.sum()))


@cache
def peak_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    """FLOP/s that one device reaches at most, measured once where it is a CPU; None where that is not known."""
    if device.type == "cpu":
        return _measured_flops(dtype)
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return None
    card = known_card(torch.cuda.get_device_name(device))
    return card.flops if card else None


def _measured_flops(dtype: torch.dtype) -> float:
    """The best of a few products of matrices, with this process's threads.

    They grow until one takes long: CPUs that can't multiply bfloat16 are a hundred times slower than others.
    """
    best = 0.0
    for side in _SIDES:
        matrix = torch.ones(side, side, dtype=dtype)
        seconds = []
        for _ in range(4):
            start = time.perf_counter()
            matrix @ matrix
            seconds.append(time.perf_counter() - start)
        best = max(best, 2 * side**3 / min(seconds))
        if min(seconds) > _LONG:
            break
    return best


def _layer(name: str) -> int:
    """The number of the layer that `name` is in; what stands before all layers counts to the first."""
    match = _LAYER.search(name)
    return int(match[1]) if match else 0


def _size(weights: Iterable[torch.Tensor]) -> int:
    return sum(int(getattr(weight, "ds_numel", weight.numel())) for weight in weights)
