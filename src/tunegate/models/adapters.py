"""A base model with its adapter as one object that generates: torch and peft."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

from peft import PeftModel

from tunegate.api.errors import ModelError
from tunegate.models.prompt_tuning import PREFIX


def with_adapter(network: Any, adapter: Path) -> Any:
    """`network` with the adapter in a folder. Raises ModelError unless each fits the other in every weight."""
    misfit = f"The adapter in {adapter} does not fit its base model"
    try:
        with warnings.catch_warnings():
            # peft 0.21 asks transformers 5 for this under its old name
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            # true, and what merging takes care of
            warnings.filterwarnings("ignore", "Model has `tie_word_embeddings=True` and a tied layer", UserWarning)
            # said below, as an error
            warnings.filterwarnings("ignore", "Found missing adapter keys", UserWarning)
            model = PeftModel.from_pretrained(network, adapter).eval()
            loaded = model.load_adapter(adapter, "default")  # says what fitted, as from_pretrained does not
    except KeyError as error:  # peft looks for a module that the adapter replaces, by the name of its weight
        raise ModelError(
            f"{misfit}: it lacks {error.args[0]}; publish the whole adapter, or give its own base."
        ) from None
    except (RuntimeError, ValueError, TypeError) as error:
        raise ModelError(f"{misfit}: {error}") from None
    config = model.peft_config["default"]
    if config.is_prompt_learning:
        layers = network.config.get_text_config().num_hidden_layers
        if config.num_layers != layers:
            raise ModelError(f"{misfit}: it is for {config.num_layers} layers, and the model has {layers}.")
    elif loaded.unexpected_keys:
        raise ModelError(
            f"{misfit}: it has {_some(loaded.unexpected_keys)}, which the model has no place for; give its own base."
        )
    elif loaded.missing_keys:
        raise ModelError(
            f"{misfit}: it lacks {_some(loaded.missing_keys)}; publish the whole adapter, or give its own base."
        )
    return model


def under_prefix(network: Any, folder: Path) -> Any:
    """`network`, loaded from `folder`, under the soft prompt that lies in it as a prefix."""
    return with_adapter(network, folder / PREFIX)


def _some(keys: Collection[str]) -> str:
    first = min(keys).removeprefix("base_model.model.").replace(".default", "")
    return f"{first} and {len(keys) - 1} more weights" if len(keys) > 1 else first
