"""A whole model with smaller weights, as compressed-tensors stores them: read by transformers and by vLLM as it is.

Nothing is calibrated: each weight is rounded to the nearest step of its channel or group, so no data is needed and the
same folder gives the same bytes. Embeddings and the head keep their type. What computes with the small weights is the
engine's matter: vLLM on GPUs does; transformers on a CPU unpacks them when it loads.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.utils.logging import disable_progress_bar

from tunegate.api.errors import ModelError
from tunegate.models.network import load_network, read_config

with warnings.catch_warnings():
    # torch 2.13 warns of its own old parts as they load for compressed-tensors
    warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import (
        QuantizationArgs,
        QuantizationConfig,
        QuantizationScheme,
        apply_quantization_config,
    )
    from compressed_tensors.quantization.lifecycle.forward import fake_quantize
    from compressed_tensors.quantization.utils import calculate_qparams

_GROUPS = (128, 64, 32)  # weights that share a scale in int4; the greatest that every layer can be cut into
_WEIGHTS: dict[str, dict[str, Any]] = {
    "int8": {"num_bits": 8, "type": "int", "strategy": "channel"},
    "int4": {"num_bits": 4, "type": "int", "strategy": "group"},
    "fp8": {"num_bits": 8, "type": "float", "strategy": "channel"},
}
_TEXT = ("*.json", "*.jinja", "*.txt", "*.model")


@dataclass(frozen=True)
class Quantized:
    """What came out: the mean relative error of the quantized weights, and the bytes of all weights before and now."""

    error: float
    bytes_before: int
    bytes_now: int


def quantize(folder: Path, into: Path, method: str) -> Quantized:
    """Write the model in `folder` to `into` with weights by `method`: int8, int4 or fp8. Raises ModelError."""
    disable_progress_bar()
    if hasattr(read_config(folder), "quantization_config"):
        raise ModelError(f"The model in {folder} is quantized; quantize the one it was made from.")
    model = load_network(folder, "auto")
    settings = dict(_WEIGHTS[method])
    if settings["strategy"] == "group":
        settings["group_size"] = _group(layer.in_features for layer in model.modules() if isinstance(layer, nn.Linear))
    inputs = None
    if settings["type"] == "float":  # fp8 hardware multiplies fp8 by fp8: inputs are rounded as they come
        inputs = QuantizationArgs(num_bits=8, type="float", strategy="token", symmetric=True, dynamic=True)
    weights = QuantizationArgs(**settings, symmetric=True)
    scheme = QuantizationScheme(targets=["Linear"], weights=weights, input_activations=inputs)
    head = model.get_output_embeddings()
    kept = [name for name, module in model.named_modules() if module is head]
    apply_quantization_config(model, QuantizationConfig(config_groups={"all": scheme}, ignore=kept))
    layers = [module for module in model.modules() if getattr(module, "quantization_scheme", None) is not None]
    if not (errors := [_round(layer) for layer in layers]):
        raise ModelError(f"The model in {folder} has no linear layers, which are what is quantized; serve it as it is.")
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(into)
    compressor.update_config(into)
    for path in sorted({path for pattern in _TEXT for path in folder.glob(pattern)}):
        if not (into / path.name).exists() and ".safetensors" not in path.name:
            shutil.copyfile(path, into / path.name)
    return Quantized(sum(errors) / len(errors), _weights(folder), _weights(into))


def _group(widths: Iterator[int]) -> int:
    sizes = set(widths)
    for group in _GROUPS:
        if all(size % group == 0 for size in sizes):
            return group
    raise ModelError(f"int4 needs layers whose width is a multiple of {_GROUPS[-1]}; use --method int8.")


@torch.no_grad()
def _round(module: Any) -> float:
    """Set the scales of one layer to what its weights span; the relative error that rounding to them makes."""
    weights = module.quantization_scheme.weights
    grouped = weights.strategy == "group"
    wide = module.weight.float().unflatten(-1, (-1, weights.group_size)) if grouped else module.weight.float()
    low, high = wide.amin(-1, keepdim=not grouped), wide.amax(-1, keepdim=not grouped)
    scale, zero = calculate_qparams(low, high, weights)
    module.weight_scale.copy_(scale)
    near = fake_quantize(module.weight.float(), module.weight_scale.float(), zero, weights)
    return float((near - module.weight.float()).norm() / module.weight.float().norm())


def _weights(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))
