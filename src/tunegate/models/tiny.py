"""A real model that is made in seconds: the Qwen2 architecture with 0.8 M parameters and a tokenizer of its own.

Tests and the smallest end-to-end loop train it from random weights, so it must learn a small corpus in seconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer
from transformers.utils.logging import disable_progress_bar

from tunegate.models.templates import TURN_END, TURN_START, load_template

VOCABULARY = 2000
PADDING = "<|endoftext|>"
_TEMPLATE_WORDS = "system\nuser\nassistant\nYou are a helpful assistant.\n" * 2


def make_tiny(into: Path, texts: Iterable[str], *, seed: int = 0) -> Path:
    """Write a tiny model with random weights to `into`; its byte-level BPE is trained on `texts`. Returns `into`."""
    disable_progress_bar()
    tokenizer = _train_tokenizer(texts)
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(_config(tokenizer))
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=False
    )
    model.save_pretrained(into)
    tokenizer.save_pretrained(into)
    return into


def _train_tokenizer(texts: Iterable[str]) -> Qwen2Tokenizer:
    """Qwen2's own way to split text (a digit stands alone), with merges learned from `texts`."""
    qwen = Qwen2Tokenizer().backend_tokenizer
    bpe = Tokenizer(models.BPE())
    bpe.normalizer, bpe.pre_tokenizer = qwen.normalizer, qwen.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PADDING, TURN_START, TURN_END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator([_TEMPLATE_WORDS, *texts], trainer)
    learned = json.loads(bpe.to_str())["model"]
    return Qwen2Tokenizer(
        vocab=learned["vocab"],
        merges=[tuple(merge) for merge in learned["merges"]],
        pad_token=PADDING,
        eos_token=TURN_END,
        extra_special_tokens=[TURN_START],
        chat_template=load_template("chatml"),
    )


def _config(tokenizer: Qwen2Tokenizer) -> Qwen2Config:
    return Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
