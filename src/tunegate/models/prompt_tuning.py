"""Soft prompts as a model folder holds them: as tokens that its chat template begins with, or as a prefix beside it.

P-tuning learns embeddings that come before the input. They become extra rows of the vocabulary, so the result is a
plain model. P-tuning v2 learns keys and values for every layer, which no plain model has a place for: the folder is the
base model's, and the prefix lies in a folder of its own within it. Imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Container
from pathlib import Path
from typing import Any

import msgspec

from tunegate.api.errors import ModelError
from tunegate.api.versions import RELEASE, Format
from tunegate.models.templates import TEMPLATE_FILE

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
PREFIX = "prefix"  # the folder within a model's folder
LORA = "lora"  # the same of a LoRA that is not merged
GENERATION = "generation_config.json"
# What is said about text and answers comes from the adapter's folder: it is what the adapter was trained with.
FROM_ADAPTER = ("tokenizer.json", "tokenizer_config.json", TEMPLATE_FILE, GENERATION, RELEASE)
_LEADING = re.compile(r"(?:<\|prompt_\d+\|>)*")


def kind_of(adapter_config: bytes | None, name: str) -> str:
    """peft's name of what the adapter `name` is: LORA, P_TUNING or PREFIX_TUNING. Raises ModelError for another."""
    if adapter_config is None:
        raise ModelError(f"{name} has no {ADAPTER_CONFIG}, so it is no adapter; publish it as huggingface.")
    kind = _decode(adapter_config, f"{ADAPTER_CONFIG} of {name}").get("peft_type")
    if kind not in ("LORA", "P_TUNING", "PREFIX_TUNING"):
        raise ModelError(f"{name} is an adapter of the kind {kind}; LORA, P_TUNING and PREFIX_TUNING are known here.")
    return str(kind)


def kind_in(adapter: Path, name: str = "") -> str:
    """`kind_of` the adapter in a folder."""
    config = adapter / ADAPTER_CONFIG
    return kind_of(config.read_bytes() if config.is_file() else None, name or str(adapter))


def refuse_prefix(kind: str, name: str) -> None:
    """Raise ModelError when `kind` is what only our own engine and evaluation can use."""
    if kind == "PREFIX_TUNING":
        raise ModelError(
            f"{name} is a prefix for every layer (P-tuning v2) and no whole model; it can be evaluated, and served "
            "with --engine transformers, and nothing else."
        )


def format_of(folder: Path) -> Format:
    """What kind of version the model or adapter in `folder` makes."""
    if not (folder / ADAPTER_CONFIG).is_file():
        return "huggingface"
    return "lora-adapter" if kind_in(folder) == "LORA" else "prompt-adapter"


def has_prefix(folder: Path) -> bool:
    """Whether the model in `folder` answers rightly only under the prefix beside it."""
    return (folder / PREFIX / ADAPTER_CONFIG).is_file()


def has_lora(folder: Path) -> bool:
    """Whether the model in `folder` answers rightly only with the LoRA beside it."""
    return (folder / LORA / ADAPTER_CONFIG).is_file()


def new_tokens(count: int, known: Container[str]) -> list[str]:
    """Names for `count` tokens of a soft prompt that the vocabulary does not have yet."""
    first = next(start for start in range(0, 1 << 30, count) if f"<|prompt_{start}|>" not in known)
    return [f"<|prompt_{first + place}|>" for place in range(count)]


def leading_tokens(folder: Path) -> str:
    """The tokens of a soft prompt that the chat template in `folder` begins with; mostly none."""
    path = folder / TEMPLATE_FILE
    found = _LEADING.match(path.read_text(encoding="utf-8")) if path.is_file() else None
    return found[0] if found else ""


def prompt_length(folder: Path) -> int:
    """How many positions of the model's context a soft prompt takes before any text."""
    if has_prefix(folder):
        path = folder / PREFIX / ADAPTER_CONFIG
        return int(_decode(path.read_bytes(), str(path))["num_virtual_tokens"])
    return leading_tokens(folder).count("|><|") + bool(leading_tokens(folder))


def _decode(config: bytes, where: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(config, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise ModelError(f"{where} can't be read: {error}. Publish the adapter again.") from None
