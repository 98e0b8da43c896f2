"""A model's folder as a network in memory, with every weight from the folder: torch and transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from tunegate.api.errors import ModelError


def load_network(
    folder: Path, dtype: torch.dtype | Literal["auto"], attention: str | None = None, *, device: str | None = None
) -> PreTrainedModel:
    """The causal language model in `folder`, for inference. Raises ModelError when it can't be loaded whole.

    attention: transformers' name of what computes it, unless the model's own choice is right.
    device: where it goes, the CPU by default; "meta" only looks whether every weight is there.
    """
    how = {"attn_implementation": attention, "device_map": device, "local_files_only": True}
    try:
        network, about = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, output_loading_info=True, **how)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"{folder} can't be loaded as a language model: {first_line(error)}; save the whole model there again."
        ) from None
    if about["missing_keys"]:
        # transformers fills what is missing with random numbers
        raise ModelError(f"{folder} lacks weights, such as {min(about['missing_keys'])}; publish the whole model.")
    return network.eval()


def network_of_shapes(folder: Path, name: str) -> PreTrainedModel:
    """The model that config.json in `folder`, called `name`, describes: every weight has its shape and no numbers."""
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder, local_files_only=True))
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"{name} is not that of a language model: {first_line(error)}; give another base.") from None


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in `folder`. Raises ModelError when there is no usable one."""
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{folder} has no usable tokenizer ({first_line(error)}); save one beside the weights."
        ) from None


def has_bfloat16() -> bool:
    """Whether the device multiplies bfloat16. Where it can't, bfloat16 is emulated and slower than float32."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    cpu = Path("/proc/cpuinfo")
    flags = cpu.read_text() if cpu.exists() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def first_line(error: Exception) -> str:
    """What a library's error says first, without the period."""
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
