"""Put an adapter into its base model, so that any engine can serve the result.

A LoRA's sum is made in 32 bits and rounded once to the base's own type. P-tuning's embeddings become tokens that the
chat template begins with. Either way the same two folders give the same bytes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import AddedToken
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from tunegate.api.errors import ModelError
from tunegate.api.versions import RELEASE
from tunegate.models.adapters import with_adapter
from tunegate.models.prompt_tuning import ADAPTER_WEIGHTS, kind_in, new_tokens

GENERATION = "generation_config.json"
# What is said about text and answers comes from the adapter's folder: it is what the adapter was trained with.
FROM_ADAPTER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", GENERATION, RELEASE)


def merge_adapter(base: Path, adapter: Path, into: Path) -> Path:
    """Write the merged model to `into`. Raises ModelError when the adapter doesn't fit the base or can't be merged."""
    disable_progress_bar()
    kind = kind_in(adapter)
    if kind == "PREFIX_TUNING":
        raise ModelError(
            f"{adapter} holds keys and values for every layer (P-tuning v2), which no plain model has a place for; "
            "serve it with --engine transformers, or train it by p_tuning or lora."
        )
    config = AutoConfig.from_pretrained(base)
    if hasattr(config, "quantization_config"):
        raise ModelError(f"The base model in {base} is quantized; merge into the one it was made from, then quantize.")
    (_merge_prompt if kind == "P_TUNING" else _merge_lora)(base, adapter, into, config.dtype or torch.float32)
    return into


def _merge_lora(base: Path, adapter: Path, into: Path, stored: torch.dtype) -> None:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with_adapter(model, adapter).merge_and_unload().to(stored).save_pretrained(into)
    for name in FROM_ADAPTER:
        if (adapter / name).is_file():
            shutil.copyfile(adapter / name, into / name)


def _merge_prompt(base: Path, adapter: Path, into: Path, stored: torch.dtype) -> None:
    prompt = load_file(adapter / ADAPTER_WEIGHTS)["prompt_embeddings"]
    model = AutoModelForCausalLM.from_pretrained(base, dtype=stored)
    width = model.get_input_embeddings().weight.shape[1]
    if prompt.shape[1] != width:
        raise ModelError(
            f"The prompt in {adapter} is {prompt.shape[1]} wide, and the model in {base} {width}; give its own base."
        )
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    names = new_tokens(len(prompt), tokenizer.get_vocab())
    tokenizer.add_tokens([AddedToken(name, special=True, normalized=False) for name in names], special_tokens=True)
    tokenizer.chat_template = "".join(names) + str(tokenizer.chat_template)
    ids = tokenizer.convert_tokens_to_ids(names)
    _add_rows(model, ids, prompt.to(stored))
    model.save_pretrained(into)
    tokenizer.save_pretrained(into)
    if (adapter / RELEASE).is_file():
        shutil.copyfile(adapter / RELEASE, into / RELEASE)
    _suppress(adapter / GENERATION, into / GENERATION, ids)


@torch.no_grad()
def _add_rows(model: Any, ids: Sequence[int], prompt: torch.Tensor) -> None:
    """Let the model read the prompt's tokens, and never write them.

    In the head each gets the mean of all rows: its logit is the mean logit, which is below the greatest one, and its
    probability at most that of an even guess, for every engine, whether or not it can be told to suppress tokens.
    """
    size = model.get_input_embeddings().weight.shape[0]
    mean = model.get_output_embeddings().weight.float().mean(dim=0)
    model.resize_token_embeddings(max(size, max(ids) + 1), mean_resizing=False)
    head = model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.clone())  # its own rows from here on
    model.config.get_text_config().tie_word_embeddings = model.config.tie_word_embeddings = False
    head.weight[ids] = mean.to(head.weight.dtype)
    if head.bias is not None:
        head.bias[ids] = head.bias[:size].float().mean().to(head.bias.dtype)
    model.get_input_embeddings().weight[ids] = prompt


def _suppress(source: Path, target: Path, ids: Sequence[int]) -> None:
    """The adapter's generation settings, which also tell engines that can not to draw the prompt's tokens."""
    settings = json.loads(source.read_bytes()) if source.is_file() else json.loads(target.read_bytes())
    settings["suppress_tokens"] = sorted({*(settings.get("suppress_tokens") or ()), *ids})
    target.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
