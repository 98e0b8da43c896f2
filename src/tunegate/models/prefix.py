"""A base model under the learned prefix that lies beside it, as the object that generates: torch and peft."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peft import PeftModel

from tunegate.api.errors import ModelError
from tunegate.models.prompts import PREFIX


def under_prefix(network: Any, folder: Path) -> Any:
    """`network`, loaded from `folder`, under the folder's prefix. Raises ModelError when one does not fit the other."""
    try:
        return PeftModel.from_pretrained(network, folder / PREFIX).eval()
    except (RuntimeError, ValueError, KeyError) as error:
        raise ModelError(f"The prefix in {folder} does not fit its base model: {error}") from None
