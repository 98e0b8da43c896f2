"""Real models and adapters with random weights that are large enough to make every answer another one."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PrefixTuningConfig, PromptEncoderConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from tunegate.models import make_tiny
from tunegate.models.adapters import with_adapter

TEXTS = ["How much is the kettle? It costs $43.", "水壶多少钱？售价43元。"] * 4
VIRTUAL = 7  # tokens of a soft prompt


def make_lively(folder: Path) -> Path:
    """A tiny model that does not repeat one token for ever, as those with usual random weights do."""
    make_tiny(folder, TEXTS)
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" not in name:
                weight.mul_(6)
    model.save_pretrained(folder)
    return folder


def make_prompt(base: Path, folder: Path) -> Path:
    """An adapter as P-tuning leaves it."""
    settings = {"encoder_reparameterization_type": "LSTM", "encoder_hidden_size": 32}
    return _make(base, folder, PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=VIRTUAL, **settings))


def make_prefix(base: Path, folder: Path) -> Path:
    """An adapter as P-tuning v2 leaves it."""
    return _make(base, folder, PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=VIRTUAL))


def make_lora(base: Path, folder: Path, **settings: Any) -> Path:
    """A LoRA adapter as training leaves it; `settings` are peft's."""
    return _make(base, folder, LoraConfig(task_type="CAUSAL_LM", r=4, **settings), std=0.1)


def make_untied(base: Path, folder: Path) -> Path:
    """The same model with a head of its own."""
    model = AutoModelForCausalLM.from_pretrained(base)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight) * 0.1)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def tuned(base: Path, adapter: Path) -> Any:
    """The adapter on its base as peft runs it."""
    return with_adapter(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter)


def _make(base: Path, folder: Path, config: PeftConfig, std: float = 1) -> Path:
    with warnings.catch_warnings():
        # peft 0.21 asks transformers 5 for this under its old name
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        # peft warns of what the tests of merging are about
        warnings.filterwarnings("ignore", "Model has `tie_word_embeddings=True`", UserWarning)
        warnings.filterwarnings("ignore", "Setting `save_embedding_layers` to `True`", UserWarning)
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    torch.manual_seed(1)
    for weight in (weight for weight in model.parameters() if weight.requires_grad):
        torch.nn.init.normal_(weight, std=std)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Setting `save_embedding_layers` to `True`", UserWarning)
        model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    (folder / "README.md").unlink()
    return folder
