"""What a training run is asked to do, checked before anything is started.

The names are LLaMA-Factory's, where it has one. Nothing here knows of torch, the store or the command line.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import msgspec

from tunegate.api.codec import Resource
from tunegate.api.errors import UsageError
from tunegate.models.templates import load_template

ZERO2 = Path(__file__).with_name("zero2.json")
_KEPT_BESIDE_A_STORE = 2  # checkpoints: one to go on from, also where the newest turns out to be damaged
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?")

# What may differ when a run goes on: where things lie, and what is only shown.
_NOT_PART_OF_THE_RUN = {
    "dataset_dir",
    "endpoint_url",
    "logging_steps",
    "max_rejected",
    "metrics_port",
    "model_name_or_path",
    "nproc_per_node",
    "output_dir",
    "overwrite_cache",
    "report_to",
    "resume",
    "save_total_limit",
    "store",
}


class TrainConfig(Resource, frozen=True, kw_only=True, rename=None):
    """One training run. Its checkpoints become the versions `<model>/<run>/checkpoint-<step>` of `store`.

    model_name_or_path: a version in the store (name, URI or digest), or a folder, here or in a bucket.
    dataset_dir, dataset: names of entries in `dataset_dir`/dataset_info.json, or files and folders by path or URI.
    store: where versions are published; None keeps checkpoints in `output_dir` only, and needs no model and run.
    finetuning_type: all weights, a LoRA adapter, the last layers ("freeze"), or prompts that are learned: at the input
        (P-tuning) or in every layer (P-tuning v2).
    warmup_steps, warmup_ratio: steps in which the learning rate grows from 0, or their share of all; steps win.
    cutoff_len, truncation: most tokens of one dialogue, and what happens to a longer one.
    max_source_length, max_target_length: most tokens of a question and of an answer, by the rule of 2023 instead.
    packing: several dialogues in one row of `cutoff_len` tokens, none of which sees another.
    is_shuffle: False reads the rows in the order of their files.
    mix_strategy, interleave_probs: how several data sets are mixed; until the first or the last of them is used up.
    val_size: rows (above 1) or their share held out and measured with each checkpoint.
    num_layer_trainable, name_module_trainable: the layers, counted from the last, and modules that "freeze" trains.
    num_virtual_tokens, encoder_hidden_size: length of a learned prompt; width of P-tuning's encoder, None the model's.
    max_samples: rows used of each data set, None for all.
    max_steps: stop after so many optimizer steps; -1 for `num_train_epochs`.
    max_rejected: share of unusable rows, 0..1, above which the run is refused.
    save_strategy: keep a checkpoint after each epoch, or every `save_steps` steps; always one at the end.
    save_total_limit: newest checkpoints that stay in `output_dir`; with a store, of those that it has. None for 2 with
    a store, for all without.
    bf16: "auto" computes in bfloat16 where the processor has instructions for it, in float32 elsewhere.
    gradient_checkpointing: "auto" saves memory at the cost of time on accelerators, not on processors.
    deepspeed: a DeepSpeed configuration file; None for ZeRO-2.
    metrics_port: where the first process serves its metrics to Prometheus; None nowhere.
    resume: go on from the newest complete checkpoint; False refuses a run that has one.
    """

    model_name_or_path: str
    dataset: tuple[str, ...]
    output_dir: str
    dataset_dir: str = "data"
    model: str = ""
    run: str = ""
    store: str | None = None
    endpoint_url: str | None = None
    finetuning_type: Literal["full", "lora", "freeze", "p_tuning", "p_tuning_v2"] = "lora"
    template: str = "chatml"
    per_device_train_batch_size: int = 8
    gradient_accumulation_steps: int = 1
    learning_rate: float = 5e-5
    num_train_epochs: float = 3.0
    max_steps: int = -1
    lr_scheduler_type: str = "cosine"
    warmup_ratio: float = 0.0
    warmup_steps: int = 0
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    cutoff_len: int = 2048
    truncation: Literal["keep_head", "keep_last_turns", "drop"] = "keep_head"
    max_source_length: int | None = None
    max_target_length: int | None = None
    packing: bool = False
    is_shuffle: bool = True
    mix_strategy: Literal["concat", "interleave_under", "interleave_over"] = "concat"
    interleave_probs: tuple[float, ...] = ()
    val_size: float = 0.0
    overwrite_cache: bool = False
    seed: int = 42
    lora_rank: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    lora_target: tuple[str, ...] = ("all",)
    num_layer_trainable: int = 3
    name_module_trainable: str = "mlp"
    num_virtual_tokens: int = 20
    encoder_hidden_size: int | None = None
    max_samples: int | None = None
    nproc_per_node: int = 2
    deepspeed: str | None = None
    save_strategy: Literal["epoch", "steps"] = "epoch"
    save_steps: int = 500
    save_total_limit: int | None = None
    bf16: Literal["auto", "true", "false"] = "auto"
    fp16: bool = False
    gradient_checkpointing: Literal["auto", "true", "false"] = "auto"
    logging_steps: int = 5
    report_to: Literal["none", "tensorboard"] = "none"
    metrics_port: int | None = None
    max_rejected: float = 0.01
    resume: bool = True

    @property
    def kept(self) -> int | None:
        """How many checkpoints stay in `output_dir`, None for all."""
        return self.save_total_limit or (_KEPT_BESIDE_A_STORE if self.store else None)


def check_config(config: TrainConfig) -> None:
    """Raise UsageError for the first setting that can't work. Reads only the DeepSpeed file and template names."""
    _check_names(config)
    _check_numbers(config)
    _check_data(config)
    if config.lr_scheduler_type not in SCHEDULES:
        raise UsageError(f"--lr_scheduler_type {config.lr_scheduler_type!r} is not one of: {', '.join(SCHEDULES)}.")
    if config.fp16 and config.bf16 == "true":
        raise UsageError(
            "--fp16 and --bf16 are both asked for; keep one of them. A flag without a value means True, also where a "
            "variable such as ${fp16} was empty: write --fp16 False."
        )
    load_template(config.template)
    _check_deepspeed(config)
    _check_prompts(config)


SCHEDULES = ("constant", "constant_with_warmup", "cosine", "linear")
_AT_LEAST = {
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "warmup_steps": 0,
    "weight_decay": 0,
    "max_grad_norm": 0,
    "cutoff_len": 16,
    "max_source_length": 1,
    "max_target_length": 1,
    "val_size": 0,
    "lora_rank": 1,
    "lora_alpha": 1,
    "num_layer_trainable": 1,
    "num_virtual_tokens": 1,
    "encoder_hidden_size": 1,
    "max_samples": 1,
    "nproc_per_node": 1,
    "logging_steps": 1,
    "save_steps": 1,
    "save_total_limit": 1,
    "seed": 0,
}
_PROMPTS = ("p_tuning", "p_tuning_v2")


def load_deepspeed(config: TrainConfig) -> dict[str, Any]:
    """The DeepSpeed configuration. Raises UsageError when it can't be read.

    What the flags say, too, is "auto" in it: check_config sees that both say the same, and on fewer processes a run
    goes on with more batches to a step than the file says.
    """
    loaded = _read_deepspeed(config)
    return {**loaded, **{name: "auto" for name in (*_IN_FLAGS, "train_batch_size") if name in loaded}}


def check_global_batch(config: TrainConfig, processes: int) -> None:
    """Raise UsageError when the DeepSpeed file says another number of dialogues to a step than the flags do."""
    said = _read_deepspeed(config).get("train_batch_size", "auto")
    wanted = config.per_device_train_batch_size * config.gradient_accumulation_steps * processes
    if said not in ("auto", wanted):
        raise UsageError(
            f"{config.deepspeed} says train_batch_size {said}, but --per_device_train_batch_size x "
            f'--gradient_accumulation_steps x processes is {wanted}; write "auto" there.'
        )


def arguments_of(config: TrainConfig) -> dict[str, Any]:
    """The settings that decide what a run computes: the same ones are needed to go on with it."""
    settings: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(config))  # as it will be read back
    kept = {name: value for name, value in settings.items() if name not in _NOT_PART_OF_THE_RUN}
    return {**kept, "deepspeed": load_deepspeed(config)}


def _check_names(config: TrainConfig) -> None:
    for name in ("model", "run") if config.store else ():
        if not _NAME.fullmatch(getattr(config, name)):
            raise UsageError(
                f"--{name} {getattr(config, name)!r} can't be part of a version's name; "
                "use lower-case letters, digits, '.' and '-'."
            )
    if not config.dataset:
        raise UsageError("No data set was named; give --dataset the name of an entry in dataset_info.json.")


def _check_numbers(config: TrainConfig) -> None:
    for name, least in _AT_LEAST.items():
        value = getattr(config, name)
        if value is not None and not value >= least:
            raise UsageError(f"--{name} is {value}; it must be at least {least}.")
    for name in ("learning_rate", "num_train_epochs"):
        if not getattr(config, name) > 0:
            raise UsageError(f"--{name} is {getattr(config, name)}; it must be greater than 0.")
    for name in ("warmup_ratio", "lora_dropout", "max_rejected"):
        if not 0 <= getattr(config, name) < 1:
            raise UsageError(f"--{name} is {getattr(config, name)}; it is a share and must be in 0..1, without 1.")
    if config.max_steps == 0 or config.max_steps < -1:
        raise UsageError(f"--max_steps is {config.max_steps}; give at least 1, or -1 to train for --num_train_epochs.")
    if config.metrics_port is not None and not 1 <= config.metrics_port <= 65535:
        raise UsageError(f"--metrics_port is {config.metrics_port}; a port is a number in 1..65535.")


def _check_data(config: TrainConfig) -> None:
    if config.val_size > 1 and not config.val_size.is_integer():
        raise UsageError(f"--val_size is {config.val_size}; give a share below 1, or a whole number of rows.")
    if (config.max_source_length is None) != (config.max_target_length is None):
        raise UsageError("--max_source_length and --max_target_length belong together; give both (512 each in 2023).")
    if config.max_source_length is not None and config.truncation != "keep_head":
        raise UsageError(
            f"--truncation {config.truncation} and --max_source_length are two rules for the same thing; give one."
        )
    if not config.interleave_probs:
        return
    if config.mix_strategy == "concat":
        raise UsageError("--interleave_probs are for a mixture; give --mix_strategy interleave_under or _over, too.")
    if len(config.interleave_probs) != len(config.dataset):
        raise UsageError(
            f"--interleave_probs has {len(config.interleave_probs)} shares and --dataset {len(config.dataset)} names; "
            "give a share for each."
        )
    if not all(share > 0 for share in config.interleave_probs):
        raise UsageError("--interleave_probs must all be greater than 0; leave out a data set that has no share.")


def _check_prompts(config: TrainConfig) -> None:
    """Raise UsageError for what can't be done where only a prompt is learned."""
    if config.finetuning_type not in _PROMPTS:
        return
    method = f"--finetuning_type {config.finetuning_type}"
    if config.packing:
        raise UsageError(
            f"{method} puts a prompt before each dialogue, which --packing has no place for; leave it out."
        )
    if _read_deepspeed(config).get("zero_optimization", {}).get("stage") == 3:
        raise UsageError(f"{method} and ZeRO-3 wait for each other forever; use ZeRO-2, or leave out --deepspeed.")
    if config.finetuning_type == "p_tuning_v2" and config.gradient_checkpointing == "true":
        raise UsageError(f"{method} keeps its prompts in a cache, which --gradient_checkpointing drops; leave it out.")


_IN_FLAGS = {
    "train_micro_batch_size_per_gpu": "per_device_train_batch_size",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "gradient_clipping": "max_grad_norm",
    "optimizer.params.lr": "learning_rate",
    "optimizer.params.weight_decay": "weight_decay",
    "fp16.enabled": "fp16",
    "bf16.enabled": "bf16",
}


def _check_deepspeed(config: TrainConfig) -> None:
    """Raise UsageError when the file hides a schedule, or says otherwise than a flag does."""
    loaded = _read_deepspeed(config)
    if "scheduler" in loaded:
        raise UsageError(
            f"{config.deepspeed} has a scheduler, which would replace --lr_scheduler_type; remove it from the file."
        )
    for name, flag in _IN_FLAGS.items():
        said, wanted = _at(loaded, name), getattr(config, flag)
        if isinstance(said, bool):
            said, wanted = str(said).lower(), str(wanted).lower()
        if said not in (None, "auto", wanted):
            raise UsageError(
                f'{config.deepspeed} says {name} {said}, but --{flag} is {wanted}; write "auto" there, or the same.'
            )


def _at(loaded: Any, path: str) -> Any:
    for name in path.split("."):
        loaded = loaded.get(name) if isinstance(loaded, dict) else None
    return loaded


def _read_deepspeed(config: TrainConfig) -> dict[str, Any]:
    path = Path(config.deepspeed) if config.deepspeed else ZERO2
    try:
        loaded: dict[str, Any] = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except OSError as error:
        raise UsageError(f"The DeepSpeed configuration {path} can't be read: {error.strerror}.") from None
    except msgspec.DecodeError as error:
        raise UsageError(f"The DeepSpeed configuration {path} is not a JSON object: {error}.") from None
    return loaded
