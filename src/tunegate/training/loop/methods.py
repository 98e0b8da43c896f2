"""What is trained: the base model, and around or in it what a method of fine-tuning adds; and what of it is served.

Whatever the method, only the parameters it needs have gradients.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import msgspec
import torch
from peft import LoraConfig, PeftConfig, PrefixTuningConfig, PromptEncoderConfig, get_peft_model
from torch import nn
from transformers import TrainingArguments

from tunegate.api.errors import ModelError
from tunegate.models.hub import parse_hub
from tunegate.models.network import load_network
from tunegate.models.templates import stops_of
from tunegate.training.config import TrainConfig
from tunegate.training.loop.attention import BY_DIALOGUE
from tunegate.training.run.plan import Plan

_ADAPTER = "adapter_config.json"
_LAYER = re.compile(r"\.(?P<layer>\d+)\.(?P<rest>.+)")


def load_model(plan: Plan, tokenizer: Any, arguments: TrainingArguments) -> Any:
    """The model to train, the same in every process. Raises ModelError when it lacks what the method trains."""
    dtype = dtype_of(arguments)
    attention = BY_DIALOGUE if plan.config.packing and arguments.device.type == "cpu" else None
    model: Any = load_network(Path(plan.base_folder), dtype, attention)
    # What ends an answer: the base model's own tokens, and those of the chat template.
    own = model.generation_config.eos_token_id
    stops = own if isinstance(own, list) else [own] if own is not None else []
    model.generation_config.eos_token_id = sorted({*stops, *stops_of(tokenizer)})
    torch.manual_seed(plan.config.seed)
    model = add_method(model, plan.config)
    if plan.adapter_folder:
        _go_on_with(model, Path(plan.adapter_folder))
    return model


def add_method(model: Any, config: TrainConfig) -> Any:
    """`model` with what the method of fine-tuning adds, and gradients where it trains. Raises ModelError as above."""
    if config.finetuning_type == "full":
        return model
    if config.finetuning_type == "freeze":
        freeze(model, config.num_layer_trainable, config.name_module_trainable)
        return model
    with warnings.catch_warnings():  # peft asks transformers by a name that it gives up
        warnings.filterwarnings("ignore", ".is_gradient_checkpointing. is deprecated", FutureWarning)
        return get_peft_model(model, _adapter_config(model, config))


def _go_on_with(model: Any, adapter: Path) -> None:
    """Give the adapter of `model` the weights of another. Raises ModelError unless it has the same modules."""
    loaded = model.load_adapter(str(adapter), "default", is_trainable=True)
    if model.active_peft_config.is_prompt_learning:
        return  # of the length that the flags say
    if loaded.missing_keys or loaded.unexpected_keys:
        settings = msgspec.json.decode((adapter / _ADAPTER).read_bytes())
        targets = ",".join(sorted(settings["target_modules"]))
        raise ModelError(f"The adapter in {adapter} is on other modules; give its own: --lora_target {targets}.")


def dtype_of(arguments: TrainingArguments) -> torch.dtype:
    """What the model is read and computed in."""
    return torch.bfloat16 if arguments.bf16 else torch.float16 if arguments.fp16 else torch.float32


def freeze(model: nn.Module, layers: int, modules: str) -> None:
    """Leave gradients to the named modules (by commas) of the last layers only. Raises ModelError when one is missing.

    A module is named by the beginning of its path in a layer: `mlp`, `self_attn`, `self_attn.q_proj`.
    """
    found = [(name, match) for name, _ in model.named_parameters() if (match := _LAYER.search(name))]
    count = 1 + max((int(match["layer"]) for _, match in found), default=-1)
    if layers > count:
        raise ModelError(f"--num_layer_trainable is {layers}, but the model has {count} layers; give at most that.")
    wanted = tuple(name.strip() for name in modules.split(","))
    for name in wanted:
        if not any(match["rest"].startswith(name) for _, match in found):
            there = sorted({match["rest"].split(".")[0] for _, match in found})
            raise ModelError(f"--name_module_trainable {name!r} is in no layer; a layer has: {', '.join(there)}.")
    last = [(name, match["rest"]) for name, match in found if int(match["layer"]) >= count - layers]
    trained = {name for name, rest in last if rest.startswith(wanted)}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Those with gradients, and all; also where ZeRO-3 keeps only a part of each in this process."""
    sizes = [(getattr(weight, "ds_numel", weight.numel()), weight.requires_grad) for weight in model.parameters()]
    return sum(size for size, has_gradient in sizes if has_gradient), sum(size for size, _ in sizes)


def make_servable(folder: Path, model: Any, plan: Plan) -> None:
    """Add what the Trainer leaves out: stop tokens, and for an adapter its base, not a path of this machine."""
    model.generation_config.save_pretrained(folder)
    adapter = folder / _ADAPTER
    if adapter.is_file():
        base = plan.release.base
        settings = msgspec.json.decode(adapter.read_bytes())
        of_hub = parse_hub(plan.config.model_name_or_path)
        settings["base_model_name_or_path"] = (
            base.uri if base else of_hub.name if of_hub else Path(plan.base_folder).name
        )
        if isinstance(targets := settings.get("target_modules"), list):
            settings["target_modules"] = sorted(targets)  # of a set, whose order is another in each process
        adapter.write_bytes(msgspec.json.format(msgspec.json.encode(settings)) + b"\n")


def _adapter_config(model: nn.Module, config: TrainConfig) -> PeftConfig:
    if config.finetuning_type == "p_tuning":
        # Embeddings through an LSTM and an MLP, put before the input; the model's width where none is given.
        return PromptEncoderConfig(
            task_type="CAUSAL_LM",
            num_virtual_tokens=config.num_virtual_tokens,
            encoder_reparameterization_type="LSTM",
            encoder_hidden_size=config.encoder_hidden_size,
        )
    if config.finetuning_type == "p_tuning_v2":
        # Keys and values in every layer, trained as they are: a projection before them is prefix tuning, the first one.
        return PrefixTuningConfig(
            task_type="CAUSAL_LM", num_virtual_tokens=config.num_virtual_tokens, prefix_projection=False
        )
    is_all = config.lora_target == ("all",)
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    for target in () if is_all else config.lora_target:
        if not any(name == target or name.endswith(f".{target}") for name in linear):
            there = sorted({name.rsplit(".", 1)[-1] for name in linear})
            raise ModelError(f"--lora_target {target!r} is no linear module; give all, or of: {', '.join(there)}.")
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=config.lora_rank,
        lora_alpha=config.alpha,
        lora_dropout=config.lora_dropout,
        target_modules="all-linear" if is_all else list(config.lora_target),
    )
