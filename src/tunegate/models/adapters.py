"""A base model with its adapter as one object that generates: torch and peft."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from peft import PeftModel

from tunegate.api.errors import ModelError
from tunegate.models.prompt_tuning import PREFIX


def with_adapter(network: Any, adapter: Path) -> Any:
    """`network` with the adapter in a folder. Raises ModelError when one does not fit the other."""
    try:
        with warnings.catch_warnings():
            # peft 0.21 asks transformers 5 for this under its old name
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            return PeftModel.from_pretrained(network, adapter).eval()
    except (RuntimeError, ValueError, KeyError) as error:
        raise ModelError(f"The adapter in {adapter} does not fit its base model: {error}") from None


def under_prefix(network: Any, folder: Path) -> Any:
    """`network`, loaded from `folder`, under the learned prefix that lies in it."""
    return with_adapter(network, folder / PREFIX)
