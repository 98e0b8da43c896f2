"""A file of settings, as LLaMA-Factory's examples are, read as the flags that say the same.

Pure: text in, arguments out.
"""

from __future__ import annotations

import json
from typing import Any

import yaml

from tunegate.api.errors import UsageError

SUFFIXES = (".yaml", ".yml", ".json")

# What its settings mean where a file leaves them out, and ours don't.
DEFAULTS = {"lr_scheduler_type": "linear", "lora_rank": 8}
_OTHER_LAYOUTS = {
    "LLaMA-Factory's v1": {
        "model_class",
        "train_dataset",
        "dist_config",
        "kernel_config",
        "peft_config",
        "quant_config",
    },
    "Axolotl's": {"base_model", "datasets", "sequence_len", "micro_batch_size", "adapter"},
}
_OF_OBJECTS = ("_kwargs", "_args", "_config", "_scaling")  # how settings end that may have settings of their own


def arguments_of_file(text: str, name: str) -> list[str]:
    """`--name=value` for each setting of the file called `name`; a list has commas, what is null is left out.

    Raises UsageError for what is no such file.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        loaded = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}, line {mark.line + 1}" if mark else name
        raise UsageError(f"{where} is not YAML: {getattr(error, 'problem', error)}; correct it there.") from None
    if not isinstance(node, yaml.MappingNode) or not all(isinstance(key, str) for key in loaded):
        raise UsageError(f"{name} is no list of settings; write one a line, such as `learning_rate: 1.0e-4`.")
    keys = [key.value for key, _ in node.value]
    if twice := [key for index, key in enumerate(keys) if key in keys[:index]]:
        raise UsageError(f"{name} has {twice[0]} twice; keep one of them.")
    for layout, keys_of_it in _OTHER_LAYOUTS.items():
        if other := sorted(keys_of_it & loaded.keys()):
            raise UsageError(
                f"{name} has {', '.join(other)}, of {layout} layout; write the keys of LLaMA-Factory's examples, "
                "such as model_name_or_path, dataset, finetuning_type."
            )
    nested = [key for key, value in loaded.items() if isinstance(value, dict) and not key.endswith(_OF_OBJECTS)]
    if nested:
        remedy = (
            "write them into a file of its own, and its path here" if nested == ["deepspeed"] else "write them flat"
        )
        raise UsageError(f"{name} has settings below {', '.join(nested)}; {remedy}.")
    settings = {**DEFAULTS, **loaded}
    return [f"--{key}={_text(value)}" for key, value in settings.items() if value is not None]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ",".join(map(_text, value))
    return json.dumps(value) if isinstance(value, dict) else str(value)
