"""Put a LoRA adapter into its base model, so that any engine can serve the result.

The sum is made in 32 bits and rounded once to the base's own type: the same two folders give the same bytes.
"""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

from tunegate.api.errors import ModelError
from tunegate.api.versions import RELEASE

# What is said about text and answers comes from the adapter's folder: it is what the adapter was trained with.
_FROM_ADAPTER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json", RELEASE)


def merge_adapter(base: Path, adapter: Path, into: Path) -> Path:
    """Write the merged model to `into`. Raises ModelError when the adapter does not fit the base."""
    disable_progress_bar()
    stored = AutoConfig.from_pretrained(base).dtype or torch.float32
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    try:
        with warnings.catch_warnings():
            # peft 0.21 asks transformers 5 for this under its old name
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"The adapter in {adapter} does not fit the base model in {base}: {error}") from None
    model.to(stored).save_pretrained(into)
    for name in _FROM_ADAPTER:
        if (adapter / name).is_file():
            shutil.copyfile(adapter / name, into / name)
    return into
