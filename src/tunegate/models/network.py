"""A model's folder as a network in memory, with every weight from the folder: torch and transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PreTrainedModel

from tunegate.api.errors import ModelError


def load_network(folder: Path, dtype: torch.dtype | Literal["auto"]) -> PreTrainedModel:
    """The causal language model in `folder`, for inference. Raises ModelError when it can't be loaded whole."""
    try:
        network, about = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{folder} can't be loaded as a language model: {first_line(error)}.") from None
    if about["missing_keys"]:
        # transformers fills what is missing with random numbers
        raise ModelError(f"{folder} lacks weights, such as {min(about['missing_keys'])}; publish the whole model.")
    return network.eval()


def first_line(error: Exception) -> str:
    """What a library's error says first, without the period."""
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
