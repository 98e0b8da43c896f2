"""Put an adapter into its base model, so that any engine can serve the result.

A LoRA's sum is made in 32 bits and rounded once to the base's own type. P-tuning's embeddings become tokens that the
chat template begins with. Either way the same two folders give the same bytes.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file
from tokenizers import AddedToken
from transformers import AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from tunegate.api.errors import ModelError
from tunegate.api.versions import RELEASE
from tunegate.models.adapters import with_adapter
from tunegate.models.network import first_line, load_network, read_config
from tunegate.models.prompt_tuning import (
    ADAPTER_WEIGHTS,
    FROM_ADAPTER,
    GENERATION,
    kind_in,
    new_tokens,
    refuse_prefix,
)

BOUND = 0.001  # of the greatest logit: how far those of a merged model may be from those of the adapter on its base


def merge_adapter(base: Path, adapter: Path, into: Path) -> Path:
    """Write the merged model to `into`, once it computes what the adapter on its base does.

    Both are asked a few prompts in 32 bits: no logit may differ by more than BOUND of the greatest one. What was
    written, rounded to the base's type, is read again and must have the weights that were merged.
    Raises ModelError when that fails, or the adapter doesn't fit the base, and leaves nothing behind.
    """
    disable_progress_bar()
    refuse_prefix(kind := kind_in(adapter), str(adapter))
    config = read_config(base)
    if hasattr(config, "quantization_config"):
        raise ModelError(f"The base model in {base} is quantized; merge into the one it was made from, then quantize.")
    network = load_network(base, torch.float32)
    vocabulary = len(network.get_input_embeddings().weight)
    soft_prompt: list[int] = []
    if kind == "P_TUNING":
        prompt = load_file(adapter / ADAPTER_WEIGHTS)["prompt_embeddings"]
        tokenizer, soft_prompt = _with_tokens(adapter, len(prompt))
    known = min([vocabulary, *soft_prompt])
    tuned = with_adapter(network, adapter)
    prompts = _prompts(adapter, known)
    wanted = _logits(tuned, prompts)
    if soft_prompt:
        _add_rows(network, soft_prompt, prompt)
    else:
        network = _merged(tuned, adapter)
    _require_same(wanted, _logits(network, prompts, soft_prompt), known, adapter)
    network = network.to(config.dtype or torch.float32)
    network.save_pretrained(into)
    _require_stored(network, into)
    if kind == "P_TUNING":
        tokenizer.save_pretrained(into)
        path = adapter / GENERATION if (adapter / GENERATION).is_file() else into / GENERATION
        settings = json.loads(path.read_bytes())  # also tells engines that can not to draw the prompt's tokens
        settings["suppress_tokens"] = sorted({*(settings.get("suppress_tokens") or ()), *soft_prompt})
        (into / GENERATION).write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
    for name in FROM_ADAPTER if kind == "LORA" else (RELEASE,):
        if (adapter / name).is_file():
            shutil.copyfile(adapter / name, into / name)
    return into


def _prompts(adapter: Path, vocabulary: int) -> torch.Tensor:
    """Token ids from all over the vocabulary, and those with a meaning of their own, which adapters train most."""
    spread = torch.linspace(0, vocabulary - 1, 64).long()
    path = adapter / "tokenizer.json"
    added = json.loads(path.read_bytes()).get("added_tokens", ()) if path.is_file() else ()
    special = [token["id"] for token in added if token["id"] < vocabulary][:32]
    return torch.cat([spread, torch.tensor((special * 32)[:32], dtype=torch.long)]).reshape(-1, 16)


@torch.inference_mode()
def _logits(model: Any, prompts: torch.Tensor, before: Sequence[int] = ()) -> torch.Tensor:
    """The logits at every position of `prompts`, with the ids in `before` before each."""
    ids = torch.cat([torch.tensor([list(before)] * len(prompts), dtype=torch.long), prompts], dim=1)
    logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits[:, -prompts.shape[1] :].float()
    return logits


def _require_same(wanted: torch.Tensor, found: torch.Tensor, known: int, adapter: Path) -> None:
    """Raise ModelError when a logit of the `known` tokens differs by more than BOUND of the greatest.

    Logits that are finite in neither are the same: evaluation says what such a model is worth.
    """
    wanted, found = wanted[..., :known], found[..., :known]
    difference = (found - wanted).abs()
    difference[~wanted.isfinite() & ~found.isfinite()] = 0
    greatest = float(wanted[wanted.isfinite()].abs().max()) if wanted.isfinite().any() else 1.0
    if not difference.max() <= BOUND * max(greatest, 1.0):
        raise ModelError(
            f"The model merged from {adapter} computes something else than the adapter on its base: logits differ by "
            f"{difference.max():.3g}, where the greatest is {greatest:.3g} and {BOUND} of it is allowed. Train with "
            "--lora_target all, or another method."
        )


def _require_stored(network: Any, folder: Path) -> None:
    """Raise ModelError, and remove the folder, unless it is read back with the weights of `network`."""
    stored = dict(load_network(folder, network.dtype).named_parameters(remove_duplicate=False))
    for name, weight in network.named_parameters(remove_duplicate=False):
        if name not in stored or not torch.allclose(stored[name], weight, atol=0, rtol=0, equal_nan=True):
            shutil.rmtree(folder)
            differs = f"{folder} would not be read back as it was merged, such as {name}"
            raise ModelError(f"{differs}; merge again, and report it if that fails.")


def _merged(tuned: Any, adapter: Path) -> Any:
    """The LoRA's sum in the network itself.

    Where the adapter changes the head or the embeddings and both share their weights, the head gets its own first:
    added to the shared ones, the sum would change the other, too.
    """
    network = tuned.get_base_model()
    embeddings, head = network.get_input_embeddings(), network.get_output_embeddings()
    is_adapted = any(isinstance(layer, BaseTunerLayer) for layer in (embeddings, head))
    if is_adapted and head.weight.data_ptr() == embeddings.weight.data_ptr():
        _untie(network, head.get_base_layer() if isinstance(head, BaseTunerLayer) else head)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Input and output embeddings are no longer tied", UserWarning)
            return tuned.merge_and_unload()
    except (RuntimeError, ValueError, NotImplementedError) as error:
        raise ModelError(
            f"The adapter in {adapter} can't be merged: {first_line(error)}; train a plain LoRA instead."
        ) from None


def _untie(network: Any, head: Any) -> None:
    head.weight = torch.nn.Parameter(head.weight.detach().clone())
    network.config.get_text_config().tie_word_embeddings = network.config.tie_word_embeddings = False


def _with_tokens(adapter: Path, count: int) -> tuple[Any, list[int]]:
    """The tokenizer with `count` new tokens, which its chat template begins with, and their ids."""
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    names = new_tokens(count, tokenizer.get_vocab())
    tokenizer.add_tokens([AddedToken(name, special=True, normalized=False) for name in names], special_tokens=True)
    tokenizer.chat_template = "".join(names) + str(tokenizer.chat_template)
    return tokenizer, tokenizer.convert_tokens_to_ids(names)


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
    _untie(model, head)  # its own rows from here on
    head.weight[ids] = mean.to(head.weight.dtype)
    if head.bias is not None:
        head.bias[ids] = head.bias[:size].float().mean().to(head.bias.dtype)
    model.get_input_embeddings().weight[ids] = prompt
