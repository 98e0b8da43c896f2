"""What LLaMA-Factory's flags mean here: those of 2023 and of today become ours; what tunegate does not do is refused.

Pure: arguments in, arguments out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tunegate.api.errors import UsageError

SAME = {
    "freeze_trainable_layers": "num_layer_trainable",
    "freeze_trainable_modules": "name_module_trainable",
    "neat_packing": "packing",
    "pre_seq_len": "num_virtual_tokens",
    "run_name": "run",  # the only one under torchrun, which takes --run for a short form of its own --run-path
}
"""Another name, and ours for the same thing."""

OPPOSITE = {
    "disable_gradient_checkpointing": "gradient_checkpointing",
    "disable_shuffling": "is_shuffle",
    "no_resume": "resume",
}
"""A name, and ours for its opposite."""

_ALWAYS = "what it asks for always happens"
_ONCE = "records are read once, before training, by one process"
_WITH_CHECKPOINTS = "the validation split (--val_size) is measured with each checkpoint"
WITHOUT_EFFECT = {
    "buffer_size": "tokens are read from disk, in any order",
    "dataloader_num_workers": "tokens are read from disk, without work to share",
    "ddp_timeout": "no process waits for another while records are read",
    "do_eval": _WITH_CHECKPOINTS,
    "do_train": "",
    "eval_steps": _WITH_CHECKPOINTS,
    "eval_strategy": _WITH_CHECKPOINTS,
    "evaluation_strategy": _WITH_CHECKPOINTS,
    "include_num_input_tokens_seen": _ALWAYS,
    "flash_attn": "the fastest attention that the machine has is used",
    "group_by_length": _ALWAYS,
    "local_rank": "",
    "per_device_eval_batch_size": "they are measured in batches of --per_device_train_batch_size",
    "plot_loss": "",
    "preprocessing_num_workers": _ONCE,
    "save_safetensors": _ALWAYS,
    "streaming": "tokens are read from disk, however many there are",
    "use_fast_tokenizer": "every tokenizer is a fast one",
}
"""Accepted, and why nothing comes of it; the empty reason goes without saying."""

_SFT = "tunegate trains on given answers only (--stage sft); leave it out"
_LORA = "LoRA is trained as in its first paper; leave it out"
_AFTER = "train in bfloat16, and make a smaller version afterwards with `tunegate quantize`"
_NO_HUB = "models are folders or versions in a store, and no hub is asked; leave it out"
_ADAM = "AdamW with its usual moments is used; name another optimizer in the file of --deepspeed"
REFUSED = {
    "adam_beta1": _ADAM,
    "adam_beta2": _ADAM,
    "adam_epsilon": _ADAM,
    "adapter_name_or_path": "merge the adapter with `tunegate merge`, and give the result to --model_name_or_path",
    "cache_dir": "set TUNEGATE_CACHE in the environment instead",
    "checkpoint_dir": "merge the adapter with `tunegate merge`, and give the result to --model_name_or_path",
    "create_new_adapter": _LORA,
    "default_system": "write it into the records of the data set, as their system turn",
    "do_predict": "measure a version with `tunegate evaluate`",
    "double_quantization": _AFTER,
    "dpo_beta": _SFT,
    "eval_dataset": "make a validation split with --val_size",
    "freeze_extra_modules": "name the modules in --name_module_trainable",
    "hf_hub_token": _NO_HUB,
    "loraplus_lr_ratio": _LORA,
    "mask_history": "every answer of a dialogue is trained; split the records where only the last should be",
    "model_max_length": "give --cutoff_len",
    "model_revision": _NO_HUB,
    "no_cuda": "a GPU is used where there is one; hide it with CUDA_VISIBLE_DEVICES=''",
    "optim": _ADAM,
    "overwrite_output_dir": "a run is never deleted by another: give a new --output_dir, or leave it out to resume",
    "pissa_init": _LORA,
    "ppo_score_norm": _SFT,
    "pref_beta": _SFT,
    "pref_loss": _SFT,
    "predict_with_generate": "measure a version with `tunegate evaluate`",
    "push_to_hub": _NO_HUB,
    "q_lora": _AFTER,
    "quantization_bit": _AFTER,
    "quantization_method": _AFTER,
    "quantization_type": _AFTER,
    "ref_model": _SFT,
    "resume_from_checkpoint": "a run resumes from its newest complete checkpoint by itself; leave it out",
    "resume_lora_training": "a run resumes from its newest complete checkpoint by itself; leave it out",
    "reward_model": _SFT,
    "rope_scaling": "write it into the config.json of the base model",
    "save_only_model": "a checkpoint without its state can't be resumed from; bound them with --save_total_limit",
    "shift_attn": "the fastest attention that the machine has is used; leave it out",
    "stage": "tunegate trains on given answers only; give --stage sft",
    "split": "name the file of the split in dataset_info.json",
    "system_prompt": "write it into the records of the data set, as their system turn",
    "tokenized_path": "tokens are kept under TUNEGATE_CACHE by the digest of the data; leave it out",
    "train_on_prompt": "only answers are trained; leave it out",
    "trust_remote_code": "no code of a model's folder is ever run; take a base that transformers knows",
    "use_auth_token": _NO_HUB,
    "use_badam": _ADAM,
    "use_cpu": "a GPU is used where there is one; hide it with CUDA_VISIBLE_DEVICES=''",
    "use_dora": _LORA,
    "use_galore": _ADAM,
    "use_lora": "give --finetuning_type lora",
    "use_rslora": _LORA,
    "use_unsloth": "it is not needed; leave it out",
}
"""What tunegate does not do, and what to do instead."""

DONE = {
    "adam_beta1": {"0.9"},
    "adam_beta2": {"0.999"},
    "adam_epsilon": {"1e-8", "1e-08"},
    "optim": {"adamw_torch", "adamw_torch_fused"},
    "stage": {"sft"},
}
"""Values of those above that tunegate does anyway, and accepts silently; as it does False."""

_FALSE = {"false", "0", "no", "none", "off"}


@dataclass(frozen=True)
class Translation:
    """Arguments in our names, and sentences about those that have no effect."""

    arguments: tuple[str, ...]
    notes: tuple[str, ...]


def translate(arguments: Sequence[str], known: frozenset[str]) -> Translation:
    """`arguments` in the names of `known`; one that is in no table here stays as it is.

    Raises UsageError for what LLaMA-Factory knows and tunegate refuses.
    """
    kept: list[str] = []
    notes: list[str] = []
    for argument, flag, value in flags(arguments):
        if flag in known:
            kept.append(f"--{flag}" + argument[len(flag) + 2 :])
            kept += [value] if value is not None and "=" not in argument else []
        elif flag in SAME:
            kept += [f"--{SAME[flag]}"] + ([value] if value is not None else [])
        elif flag in OPPOSITE:
            kept += [f"--{OPPOSITE[flag]}", str(_is_false(value))]
        elif flag in REFUSED:
            if not _is_false(value) and value not in DONE.get(flag, ()):
                raise UsageError(f"--{' '.join(filter(None, [flag, value]))} is not supported: {REFUSED[flag]}.")
        elif flag in WITHOUT_EFFECT:
            notes += [f"--{flag} has no effect: {WITHOUT_EFFECT[flag]}."] if WITHOUT_EFFECT[flag] else []
        else:
            kept += [argument] + ([value] if value is not None and "=" not in argument else [])
    return Translation(tuple(kept), tuple(notes))


def without_rank(arguments: Sequence[str]) -> list[str]:
    """`arguments` without the rank that a launcher puts before the script's own; the environment has it, too."""
    return [argument for argument in arguments if not re.match(r"--local[_-]rank=", argument)]


def name_of(output_dir: str) -> str:
    """The folder's name, fit to be part of a version's; empty when nothing of it is."""
    last = output_dir.rstrip("/").rpartition("/")[2].lower()
    return re.sub(r"[^a-z0-9.]+", "-", last)[:63].strip("-.")


def flags(arguments: Sequence[str]) -> Iterator[tuple[str, str, str | None]]:
    """Each argument; the name, with underscores, of the flag it is (or ""); and the flag's value where it has one.

    Backslashes where a pasted command broke its lines are dropped.
    """
    stripped = (re.sub(r"^\\+(?=--)", "", argument) for argument in arguments)
    rest = [argument for argument in stripped if argument.strip("\\\n\r ") or not argument]
    while rest:
        argument = rest.pop(0)
        name, equals, value = argument.partition("=")
        if not name.startswith("--"):
            yield argument, "", None
        elif equals:
            yield argument, name[2:].replace("-", "_"), value
        else:
            has_value = bool(rest) and not rest[0].startswith("--")
            yield argument, name[2:].replace("-", "_"), rest.pop(0) if has_value else None


def _is_false(value: str | None) -> bool:
    return value is not None and value.lower() in _FALSE
