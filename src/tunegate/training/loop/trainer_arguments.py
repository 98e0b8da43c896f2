"""What a run's settings mean to transformers and DeepSpeed on this machine's devices.

What the hardware can't do is refused here, before the model is read.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments, get_scheduler

from tunegate.api.errors import UsageError
from tunegate.models.network import has_bfloat16
from tunegate.training.config import TrainConfig, load_deepspeed, scheduler_kwargs

_NEVER = 1_000_000_000  # steps: only the end is saved
_BITSANDBYTES = ("8bit", "bnb", "lion", "paged")
_PACKAGES = {
    "adamw_anyprecision": "torchdistx",
    "adamw_torch_4bit": "torchao",
    "adamw_torch_8bit": "torchao",
    "grokadamw": "grokadamw",
    "schedule_free": "schedulefree",
    "stable_adamw": "optimi",
    **dict.fromkeys((*_BITSANDBYTES, "ademamix"), "bitsandbytes"),
}
_DISTRIBUTIONS = {name: name for name in _PACKAGES.values()} | {"optimi": "torch-optimi"}


def training_arguments(config: TrainConfig, output_dir: Path) -> TrainingArguments:
    """`config` as transformers' arguments. Raises UsageError for what this machine can't do."""
    on_cpu = not torch.accelerator.is_available()
    if config.fp16 and on_cpu:
        raise UsageError("--fp16 needs a GPU, and there is none; leave it out, or compute with --bf16 auto.")
    if config.report_to == "tensorboard" and find_spec("tensorboard") is None:
        raise UsageError("--report_to tensorboard needs a package; install it with `pip install tensorboard`.")
    optimizer = _optimizer(config.optim)
    schedule = scheduler_kwargs(config)
    _check_schedule(config, schedule)
    saves = {"save_strategy": "steps", "save_steps": _NEVER} if config.save_strategy == "no" else {}
    saves = saves or {"save_strategy": config.save_strategy, "save_steps": config.save_steps}
    return TrainingArguments(
        output_dir=str(output_dir),
        per_device_train_batch_size=config.per_device_train_batch_size,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        learning_rate=config.learning_rate,
        num_train_epochs=config.num_train_epochs,
        max_steps=config.max_steps,
        lr_scheduler_type=config.lr_scheduler_type,
        lr_scheduler_kwargs=schedule,
        optim=optimizer,
        adam_beta1=config.adam_beta1,
        adam_beta2=config.adam_beta2,
        adam_epsilon=config.adam_epsilon,
        warmup_steps=config.warmup_steps or config.warmup_ratio,  # below 1 it is a share of all steps
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        seed=config.seed,
        use_cpu=on_cpu,
        bf16=not config.fp16 and computes_in_bfloat16(config.bf16),
        fp16=config.fp16,
        activation_checkpointing=recomputes_layers(config, on_cpu=on_cpu),
        deepspeed=_deepspeed(config),
        logging_steps=config.logging_steps,
        logging_nan_inf_filter=False,
        **saves,
        eval_strategy=saves["save_strategy"] if config.val_size else "no",
        eval_steps=saves["save_steps"],
        report_to=[] if config.report_to == "none" else [config.report_to],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=not on_cpu,
    )


def _optimizer(name: str) -> str:
    """transformers' name of it: torch's AdamW in one kernel. Raises UsageError where its package is missing."""
    package = next((package for family, package in _PACKAGES.items() if family in name), None)
    if package and find_spec(package.replace("-", "_")) is None:
        raise UsageError(f"--optim {name} needs a package; install it with `pip install {_DISTRIBUTIONS[package]}`.")
    return "adamw_torch_fused" if name == "adamw_torch" else name


def _check_schedule(config: TrainConfig, schedule: dict[str, Any]) -> None:
    """Raise UsageError for what --lr_scheduler_kwargs says to a schedule that knows no such thing."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=config.learning_rate)
    try:
        get_scheduler(config.lr_scheduler_type, optimizer, 0, 10, schedule)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"--lr_scheduler_type {config.lr_scheduler_type} can't be had with --lr_scheduler_kwargs "
            f"{config.lr_scheduler_kwargs or '{}'}: {error}; correct them."
        ) from None


def computes_in_bfloat16(requested: str) -> bool:
    """Whether to compute in bfloat16: as requested, or on "auto" where the device has instructions for it.

    On a CPU without them bfloat16 is emulated and slower than float32. Raises UsageError when a GPU can't.
    """
    if requested == "false":
        return False
    able = has_bfloat16()
    if requested == "true" and torch.cuda.is_available() and not able:
        raise UsageError("--bf16 true needs a GPU that computes in bfloat16; leave it out, or give --fp16 true.")
    return able or requested == "true"


def recomputes_layers(config: TrainConfig, *, on_cpu: bool) -> bool:
    """Whether layers are computed again backwards, to save memory: it is scarce on accelerators, time on CPUs."""
    if config.finetuning_type == "p_tuning_v2":
        return False  # its prompts are a cache of keys and values, which a layer computed again would add to
    return config.gradient_checkpointing == "true" or (config.gradient_checkpointing == "auto" and not on_cpu)


def _deepspeed(config: TrainConfig) -> dict[str, Any]:
    """The DeepSpeed configuration, where what a file leaves out has our settings instead of DeepSpeed's own.

    An optimizer in the CPU's memory is torch's own, which needs no compiler, unless the file forces DeepSpeed's.
    """
    ours = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
    dtypes = {name: {"enabled": "auto"} for name in ("bf16", "fp16")}  # without them DeepSpeed computes in float32
    optimizer = {"zero_force_ds_cpu_optimizer": False}
    return {**dict.fromkeys(ours, "auto"), **dtypes, **optimizer, **load_deepspeed(config)}
