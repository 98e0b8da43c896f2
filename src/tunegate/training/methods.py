"""What is trained: the base model, and around or in it what a method of fine-tuning adds; and what of it is served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainingArguments

from tunegate.api.errors import ModelError
from tunegate.models.templates import TURN_END, TURN_START, load_template
from tunegate.training.plan import Plan


def load_tokenizer(folder: Path, template: str) -> Any:
    """The folder's tokenizer with our chat template. Raises ModelError when it lacks the template's tokens."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for token in (TURN_START, TURN_END):
        if tokenizer.convert_tokens_to_ids(token) in (None, tokenizer.unk_token_id):
            raise ModelError(
                f"The tokenizer in {folder} has no {token}, which the template {template} needs; use another base."
            )
    tokenizer.chat_template = load_template(template)
    return tokenizer


def load_model(plan: Plan, tokenizer: Any, arguments: TrainingArguments) -> Any:
    dtype = torch.bfloat16 if arguments.bf16 else torch.float32
    model = AutoModelForCausalLM.from_pretrained(plan.base_folder, dtype=dtype)
    model.generation_config.eos_token_id = _stop_tokens(model, tokenizer)
    config = plan.config
    if config.finetuning_type == "full":
        return model
    torch.manual_seed(config.seed)
    adapter = LoraConfig(
        task_type="CAUSAL_LM",
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules="all-linear",
    )
    return get_peft_model(model, adapter)


def _stop_tokens(model: Any, tokenizer: Any) -> list[int]:
    """What ends an answer: the base model's own tokens, and the one that closes a turn."""
    own = model.generation_config.eos_token_id
    known = own if isinstance(own, list) else [own] if own is not None else []
    return sorted({*known, tokenizer.convert_tokens_to_ids(TURN_END)})


def make_servable(folder: Path, model: Any, plan: Plan) -> None:
    """Add what the Trainer leaves out: stop tokens, and for an adapter the base it belongs to, not our cache's path."""
    model.generation_config.save_pretrained(folder)
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        assert plan.release.base is not None
        settings = msgspec.json.decode(adapter.read_bytes())
        settings["base_model_name_or_path"] = plan.release.base.uri
        adapter.write_bytes(msgspec.json.format(msgspec.json.encode(settings)) + b"\n")
