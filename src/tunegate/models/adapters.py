"""A base model with its adapter as one object that generates: torch and peft."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

from peft import PeftModel

from tunegate.api.errors import ModelError
from tunegate.models.network import first_line
from tunegate.models.prompt_tuning import LORA, PREFIX

# what torch says of the first weight that differs
_MISMATCH = re.compile(r"size mismatch for (\S+): .*?torch\.Size\((.*?)\).*?torch\.Size\((.*?)\)")


def with_adapter(network: Any, adapter: Path) -> Any:
    """`network` with the adapter in a folder. Raises ModelError unless each fits the other in every weight."""
    misfit = f"The adapter in {adapter} does not fit its base model"
    remedy = "publish the whole adapter, or give its own base"
    try:
        with warnings.catch_warnings():
            # peft 0.21 asks transformers 5 for this under its old name
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            # true, and what merging takes care of
            warnings.filterwarnings("ignore", "Model has `tie_word_embeddings=True` and a tied layer", UserWarning)
            # said below, as an error
            warnings.filterwarnings("ignore", "Found missing adapter keys", UserWarning)
            # where the network has shapes only, to see whether the adapter fits them
            warnings.filterwarnings("ignore", ".*copying from a non-meta parameter", UserWarning)
            model = PeftModel.from_pretrained(network, adapter).eval()
            loaded = model.load_adapter(adapter, "default")  # says what fitted, as from_pretrained does not
    except KeyError as error:  # peft looks for a module that the adapter replaces, by the name of its weight
        raise ModelError(f"{misfit}: it lacks {error.args[0]}; {remedy}.") from None
    except (RuntimeError, ValueError, TypeError) as error:
        found = _MISMATCH.search(str(error))
        reason = f"its {_plain(found[1])} is {found[2]}, not {found[3]}" if found else first_line(error)
        raise ModelError(f"{misfit}: {reason}; give its own base.") from None
    config = model.peft_config["default"]
    if config.is_prompt_learning:
        text = network.config.get_text_config()
        if config.num_layers != text.num_hidden_layers:
            layers = f"{config.num_layers} layers, and the model has {text.num_hidden_layers}"
            raise ModelError(f"{misfit}: it is for {layers}; give its own base.")
        if config.peft_type == "P_TUNING" and config.token_dim != text.hidden_size:
            widths = f"{config.token_dim} wide, and the model {text.hidden_size}"
            raise ModelError(f"{misfit}: it is {widths}; give its own base.")
    elif keys := loaded.unexpected_keys:
        raise ModelError(f"{misfit}: it has {_some(keys)}, which the model has no place for; give its own base.")
    elif keys := loaded.missing_keys:
        raise ModelError(f"{misfit}: it lacks {_some(keys)}; {remedy}.")
    return model


def under_prefix(network: Any, folder: Path) -> Any:
    """`network`, loaded from `folder`, under the soft prompt that lies in it as a prefix."""
    return with_adapter(network, folder / PREFIX)


def under_lora(network: Any, folder: Path) -> Any:
    """`network`, loaded from `folder`, with the LoRA that lies in it within its layers: still one of transformers."""
    return with_adapter(network, folder / LORA).get_base_model()


def _some(keys: Collection[str]) -> str:
    first = _plain(min(keys))
    return f"{first} and {len(keys) - 1} more weights" if len(keys) > 1 else first


def _plain(key: str) -> str:
    """The name of a weight as the adapter's file has it."""
    return key.removeprefix("base_model.model.").replace(".default", "")
