"""Weights that ZeRO-3 has divided among processes, written as safetensors shards while no process holds them all.

What goes into which shard follows from the model alone: equal weights are equal files, however many processes wrote
them; for most architectures those that transformers' `save_pretrained` writes with this size of a shard.
"""

from __future__ import annotations

import ctypes
import json
import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from deepspeed.runtime.zero import GatheredParameters
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from transformers.core_model_loading import dot_natural_key, revert_weight_conversion
from transformers.modeling_utils import remove_tied_weights_from_state_dict
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from tunegate.training.loop.methods import count_parameters

_LOG = logging.getLogger(__name__)
LARGEST = 1 << 30  # bytes of a shard; a larger weight is one of its own
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Shard:
    """A file; `weights` are the model's names of what it is made of, `names` those in the file."""

    file: str
    weights: tuple[str, ...]
    names: tuple[str, ...]


def write_shards(engine: Any, folder: Path, largest: int) -> None:
    """Write the weights of DeepSpeed's `engine` to `folder`. Called in every rank at once.

    Each rank keeps one shard as it is put together, then all write theirs, and so on with the next ones: beside its
    part of the model a rank needs memory for one shard, and what DeepSpeed takes to gather one weight.
    """
    model, rank, ranks = engine.module, torch.distributed.get_rank(), torch.distributed.get_world_size()
    weights = model.state_dict(keep_vars=True)
    outlines = outlines_of(model, weights)
    shards = plan_shards(model, outlines, largest)
    # What is gathered lies between what is kept, in the heaps of gloo's threads, too: glibc would keep all the holes.
    give_back = partial(getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0), 0)
    engine.optimizer.checkpoint_event_prologue()
    for first in range(0, len(shards), ranks):
        kept: Tensors = {}
        for owner, shard in enumerate(shards[first : first + ranks]):
            for name in shard.weights:
                with GatheredParameters([weights[name]]):
                    if owner == rank:
                        kept[name] = weights[name].detach().to("cpu", copy=True)
            give_back()
        if kept:
            save_file(_as_written(model, kept), folder / shards[first + rank].file, metadata={"format": "pt"})
    engine.optimizer.checkpoint_event_epilogue()
    if rank == 0 and len(shards) > 1:
        _write_index(folder / SAFE_WEIGHTS_INDEX_NAME, shards, outlines, count_parameters(model)[1])


def plan_shards(model: Any, outlines: Tensors, largest: int) -> list[Shard]:
    """Which weights of `model` go into which file, in order; `outlines` have their shapes and types, no numbers.

    transformers may write other weights than the model computes with. Where it makes one of several that would lie in
    different shards, there is one shard.
    """
    files = split_torch_state_dict_into_shards(outlines, max_shard_size=largest).filename_to_tensors
    written = [_as_written(model, {name: outlines[name] for name in names}) for names in files.values()]
    whole = _as_written(model, outlines)
    if _shapes(*written) != _shapes(whole):
        _LOG.warning("weights of this architecture can't be written in shards, so one process holds them all")
        files, written = {SAFE_WEIGHTS_NAME: list(outlines)}, [whole]
    return [
        Shard(file, tuple(weights), tuple(names)) for (file, weights), names in zip(files.items(), written, strict=True)
    ]


def outlines_of(model: Any, weights: Tensors) -> Tensors:
    """What is written of `weights`, each once, without its numbers; of a part that ZeRO-3 left here, the whole."""
    ignored = model._keys_to_ignore_on_save or ()
    found = {
        name: torch.empty(getattr(weight, "ds_shape", weight.shape), dtype=weight.dtype, device="meta")
        for name, weight in weights.items()
        if name not in ignored
    }
    outlines = remove_tied_weights_from_state_dict(found, model)
    return {name: outlines[name] for name in sorted(outlines, key=dot_natural_key)}


def _as_written(model: Any, weights: Tensors) -> Tensors:
    """As transformers writes them: under the names, and in the pieces, of the files that it reads."""
    return {name: weight.contiguous() for name, weight in revert_weight_conversion(model, weights).items()}


def _shapes(*parts: Tensors) -> dict[str, torch.Size]:
    return {name: weight.shape for part in parts for name, weight in part.items()}


def _write_index(path: Path, shards: list[Shard], outlines: Tensors, parameters: int) -> None:
    size = sum(weight.numel() * weight.element_size() for weight in outlines.values())
    files = {name: shard.file for shard in shards for name in shard.names}
    index = {"metadata": {"total_parameters": parameters, "total_size": size}, "weight_map": files}
    path.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")
