"""Ways in which a model's folder is not what it seems, and what is said of each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

WEIGHTS = "model.safetensors"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 1662384\n"


def point(folder: Path, name: str = WEIGHTS) -> None:
    (folder / name).write_text(POINTER)


def cut_off(folder: Path, name: str = WEIGHTS) -> None:
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])


def spoil(folder: Path, name: str = WEIGHTS, number: float = float("nan"), dtype: torch.dtype | None = None) -> None:
    """One number of the last weight is none."""
    weights = {key: weight.to(dtype or weight.dtype) for key, weight in load_file(folder / name).items()}
    weights[max(weights)].view(-1)[-1] = number
    save_file(weights, folder / name, metadata={"format": "pt"})


def configure(folder: Path, **settings: Any) -> None:
    config = json.loads((folder / "config.json").read_bytes())
    config.pop("layer_types", None)
    (folder / "config.json").write_text(json.dumps({**config, **settings}))


def add_tokens(folder: Path, count: int = 3) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens([f"<|new_{number}|>" for number in range(count)])
    tokenizer.save(str(folder / "tokenizer.json"))


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a Git LFS pointer": (point, "model.safetensors is a Git LFS pointer"),
    "cut off": (cut_off, "model.safetensors is cut off: it has "),
    "NaN": (spoil, "numbers that are NaN or infinite"),
    "infinite in bfloat16": (
        lambda folder: spoil(folder, number=float("inf"), dtype=torch.bfloat16),
        "numbers that are NaN or infinite",
    ),
    "a tokenizer larger than the embedding": (add_tokens, "has 3 tokens more than the model has embeddings"),
    "a narrower layer": (lambda folder: configure(folder, intermediate_size=64), "where its config.json says"),
    "a layer more": (lambda folder: configure(folder, num_hidden_layers=1), "layers, where its config.json says 1"),
}
