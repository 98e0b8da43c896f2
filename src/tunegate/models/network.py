"""A model's folder as a network in memory, with every weight from the folder: torch and transformers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from tunegate.api.errors import ModelError

_LAYER = re.compile(r"\.(?:layers|h|blocks)\.(\d+)\.")
_UNUSABLE = (OSError, ValueError, KeyError, RuntimeError, SafetensorError, StrictDataclassError)


def load_network(
    folder: Path, dtype: torch.dtype | Literal["auto"], attention: str | None = None, *, device: str | None = None
) -> PreTrainedModel:
    """The causal language model in `folder`, for inference. Raises ModelError when it can't be loaded whole.

    attention: transformers' name of what computes it, unless the model's own choice is right.
    device: where it goes, the CPU by default; "meta" only looks whether every weight is there.
    """
    # transformers says of the first weight with another shape only that there is one, unless it may go on
    how = {"attn_implementation": attention, "device_map": device, "ignore_mismatched_sizes": True}
    try:
        with _errors_only():
            network, about = AutoModelForCausalLM.from_pretrained(
                folder, dtype=dtype, output_loading_info=True, local_files_only=True, **how
            )
    except _UNUSABLE as error:
        raise ModelError(
            f"{folder} can't be loaded as a language model: {first_line(error)}; save the whole model there again."
        ) from None
    _require_whole(folder, network, about)
    return network.eval()


def check_network(folder: Path) -> None:
    """Raise ModelError unless the weights in `folder` have the names and shapes that its config.json describes."""
    load_network(folder, "auto", device="meta")


def read_config(folder: Path) -> Any:
    """transformers' reading of config.json. Raises ModelError when that is none of a model it knows."""
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True)
    except _UNUSABLE as error:
        raise ModelError(f"config.json in {folder} can't be used: {first_line(error)}; correct it there.") from None


def network_of_shapes(folder: Path, name: str) -> PreTrainedModel:
    """The model that config.json in `folder`, called `name`, describes: every weight has its shape and no numbers."""
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder, local_files_only=True))
    except _UNUSABLE as error:
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
    """What a library's error says first, without the period; of a chain of them, what its cause says."""
    error = (
        error.__cause__ if isinstance(error, StrictDataclassError) and isinstance(error.__cause__, Exception) else error
    )
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__


def _require_whole(folder: Path, network: PreTrainedModel, about: dict[str, Any]) -> None:
    """Raise ModelError where transformers would go on with random numbers, or without some of the weights."""
    if about["missing_keys"]:
        raise ModelError(f"{folder} lacks weights, such as {min(about['missing_keys'])}; publish the whole model.")
    if misfits := sorted(about["mismatched_keys"]):
        name, found, wanted = misfits[0]
        raise ModelError(
            f"{name} in {folder} is {_by(found)}, where its config.json says {_by(wanted)}; give the weights their own "
            "config.json."
        )
    layers = network.config.get_text_config().num_hidden_layers
    beyond = {int(match[1]) for name in about["unexpected_keys"] if (match := _LAYER.search(name))}
    if isinstance(layers, int) and beyond and max(beyond) >= layers:
        raise ModelError(
            f"{folder} has weights of {max(beyond) + 1} layers, where its config.json says {layers}; give the weights "
            "their own config.json."
        )


def _by(shape: torch.Size) -> str:
    return " x ".join(map(str, shape)) or "a single number"


@contextmanager
def _errors_only() -> Iterator[None]:
    """Without transformers' report of what did not fit, which is said as an error, and its bar among our own words."""
    transformers_logging.disable_progress_bar()
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
