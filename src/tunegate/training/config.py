"""What a training run is asked to do, checked before anything is started.

The names are LLaMA-Factory's, where it has one.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
from msgspec import Meta

from tunegate.api.codec import Resource
from tunegate.api.errors import UsageError
from tunegate.files import default_cache
from tunegate.models.templates import check_template

ZERO2 = Path(__file__).with_name("zero2.json")
_ALPHA_OF_2023 = 32
_KEPT_BESIDE_A_STORE = 2  # checkpoints: one to resume from, also where the newest turns out to be damaged
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?")

# Settings that tunegate 0.1 did not have, and what it did: no part of a run's record unless they say otherwise.
_ADDED = {
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "adam_epsilon": 1e-08,
    "lr_scheduler_kwargs": "",
    "optim": "adamw_torch",
    "stage": "sft",
}
ADAPTER_METHODS = ("lora", "p_tuning", "p_tuning_v2")
_OF_PAIRS = ("pref_beta", "pref_ftx")  # no part of a run that learns from given answers

# What may differ when a run is resumed: where things lie, and what is only shown.
_NOT_PART_OF_THE_RUN = {
    "dataset_dir",
    "endpoint_url",
    "logging_steps",
    "max_rejected",
    "metrics_port",
    "model_name_or_path",
    "model_revision",
    "nproc_per_node",
    "output_dir",
    "overwrite_cache",
    "report_to",
    "resume",
    "resume_from",  # by its digest instead
    "save_total_limit",
    "store",
}

SCHEDULERS = (
    *("linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt"),
    *("reduce_lr_on_plateau", "cosine_with_min_lr", "cosine_warmup_with_min_lr", "warmup_stable_decay", "greedy"),
)
# Those of transformers that see whole matrices, or layer by layer, have no place under ZeRO; two are for other devices.
OPTIMIZERS = (
    *("adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop", "ademamix", "stable_adamw"),
    *("adamw_anyprecision", "adamw_torch_4bit", "adamw_torch_8bit", "adamw_bnb_8bit", "adamw_8bit", "ademamix_8bit"),
    *("lion_8bit", "lion_32bit", "paged_adamw_32bit", "paged_adamw_8bit", "paged_ademamix_32bit"),
    *("paged_ademamix_8bit", "paged_lion_32bit", "paged_lion_8bit", "rmsprop_bnb", "rmsprop_bnb_8bit"),
    *("rmsprop_bnb_32bit", "grokadamw", "schedule_free_radam", "schedule_free_adamw", "schedule_free_sgd"),
)
_MEASURED_SCHEDULERS = ("reduce_lr_on_plateau", "greedy")  # fall when the validation loss does not

# The groups in which the help and the page of options show the settings.
WHAT = "What is trained, on what"
WHERE = "Where versions go"
STEPS = "Steps"
DATA = "Data"
METHOD = "Adapters, layers and soft prompts"
MACHINES = "Machines"
SHOWN = "Checkpoints and what is shown"


Count = Annotated[int, Meta(ge=1)]
WholeNumber = Annotated[int, Meta(ge=0)]
NotNegative = Annotated[float, Meta(ge=0)]
Positive = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(ge=0, lt=1)]
Port = Annotated[int, Meta(ge=1, le=65535)]
Switch = Literal["auto", "true", "false"]


def _about(group: str, description: str) -> Meta:
    return Meta(description=description, extra={"group": group})


class TrainConfig(Resource, frozen=True, kw_only=True, rename=None):
    """One training run. Its checkpoints become the versions `<model>/<run>/checkpoint-<step>` of `store`.

    Each setting is described here and nowhere else: the command line's options and help, `check_config` and the page of
    options read it. A folder or file may be here or, as an s3:// or oss:// URI, in a bucket.
    """

    model_name_or_path: Annotated[
        str,
        _about(
            WHAT,
            "The base model: a folder or URI, a version in the store, or ORG/NAME of a hub (hf://, ms://), which is "
            "published in the store once.",
        ),
    ]
    model_revision: Annotated[
        str, _about(WHAT, "Of a hub's model: a branch, a tag or a commit; its main branch if left out.")
    ] = ""
    resume_from: Annotated[
        str,
        _about(
            WHAT,
            "A version, or a checkpoint's folder, to train further in a new run, on more data or for more epochs; its "
            "optimizer starts anew.",
        ),
    ] = ""
    dataset_dir: Annotated[str, _about(WHAT, "The folder with dataset_info.json.")] = "data"
    dataset: Annotated[
        tuple[str, ...],
        _about(WHAT, "Data sets named there, or files and folders by path or URI; several with commas."),
    ]
    output_dir: Annotated[str, _about(WHAT, "Where the run keeps its checkpoints and its log.")]
    stage: Annotated[
        Literal["sft", "dpo"],
        _about(WHAT, "Learn from given answers (sft), or from pairs of a better and a worse one (dpo)."),
    ] = "sft"
    finetuning_type: Annotated[
        Literal["full", "lora", "freeze", "p_tuning", "p_tuning_v2"],
        _about(
            WHAT,
            "All weights, a LoRA adapter, the last layers, or a soft prompt: at the input or (v2) in every layer.",
        ),
    ] = "lora"
    template: Annotated[
        str,
        _about(WHAT, "The chat template, saved beside the weights: auto is the base's own, and chatml without one."),
    ] = "auto"

    store: Annotated[
        str | None, _about(WHERE, "The model store to publish in; without one versions are not published.")
    ] = None
    endpoint_url: Annotated[
        str | None,
        _about(WHERE, "The S3 endpoint, where it is not AWS's. Credentials come from AWS's variables or files."),
    ] = None
    model: Annotated[
        str, _about(WHERE, "First part of the versions' names, <model>/<run>/checkpoint-<step>; needed with a store.")
    ] = ""
    run: Annotated[
        str,
        _about(
            WHERE, "Second part of the versions' names; that of --output_dir if left out. --run_name under torchrun."
        ),
    ] = ""

    per_device_train_batch_size: Annotated[Count, _about(STEPS, "Dialogues for each process at a time.")] = 8
    gradient_accumulation_steps: Annotated[Count, _about(STEPS, "Batches summed up before each step.")] = 1
    learning_rate: Annotated[
        Positive,
        _about(STEPS, "Highest learning rate; about 5e-5 suits all weights, 1e-4 adapters, 1e-2 soft prompts."),
    ] = 5e-05
    num_train_epochs: Annotated[Positive, _about(STEPS, "Epochs: how many times the data is read.")] = 3.0
    max_steps: Annotated[
        Annotated[int, Meta(ge=-1)], _about(STEPS, "Stop after this many steps; -1 goes by --num_train_epochs.")
    ] = -1
    lr_scheduler_type: Annotated[
        Literal[SCHEDULERS],  # type: ignore[valid-type]
        _about(STEPS, "How the learning rate falls after its warmup; by the names of transformers."),
    ] = "cosine"
    lr_scheduler_kwargs: Annotated[
        str, _about(STEPS, 'What that schedule needs beside, as JSON: {"min_lr": 1e-7}, {"num_cycles": 3}.')
    ] = ""
    warmup_ratio: Annotated[Share, _about(STEPS, "Share of the steps in which the learning rate grows from 0.")] = 0.0
    warmup_steps: Annotated[WholeNumber, _about(STEPS, "The same as a number of steps; above 0 it wins.")] = 0
    optim: Annotated[
        Literal[OPTIMIZERS],  # type: ignore[valid-type]
        _about(STEPS, "The optimizer, by the names of transformers; some need a package, which is named."),
    ] = "adamw_torch"
    adam_beta1: Annotated[Share, _about(STEPS, "Memory of Adam's first moment.")] = 0.9
    adam_beta2: Annotated[Share, _about(STEPS, "Memory of its second moment.")] = 0.999
    adam_epsilon: Annotated[Positive, _about(STEPS, "What keeps its divisions from 0.")] = 1e-08
    weight_decay: Annotated[NotNegative, _about(STEPS, "Weight decay of AdamW.")] = 0.0
    max_grad_norm: Annotated[
        NotNegative, _about(STEPS, "Gradients longer than this are shortened to it; 0 leaves them.")
    ] = 1.0
    seed: Annotated[WholeNumber, _about(STEPS, "Decides the order of the data and the first adapter weights.")] = 42

    cutoff_len: Annotated[Annotated[int, Meta(ge=16)], _about(DATA, "Most tokens of a dialogue.")] = 2048
    truncation: Annotated[
        Literal["keep_head", "keep_last_turns", "drop"],
        _about(DATA, "A longer one is cut at the end, keeps its last turns, or is left out and counted."),
    ] = "keep_head"
    max_source_length: Annotated[
        Count | None, _about(DATA, "The rule of 2023 instead: most tokens of a question; needs --max_target_length.")
    ] = None
    max_target_length: Annotated[
        Count | None, _about(DATA, "Most tokens of an answer by that rule; needs --max_source_length.")
    ] = None
    packing: Annotated[
        bool,
        _about(
            DATA,
            "Several dialogues in one row of --cutoff_len tokens, none of which sees another: fewer, larger steps. "
            "Off, as dialogues of like lengths in a batch have little padding, too.",
        ),
    ] = False
    is_shuffle: Annotated[
        bool, _about(DATA, "Read the examples in a new order in each epoch; False goes by their files.")
    ] = True
    val_size: Annotated[
        NotNegative,
        _about(
            DATA, "The validation split: a number of examples (above 1) or their share, measured with each checkpoint."
        ),
    ] = 0.0
    mix_strategy: Annotated[
        Literal["concat", "interleave_under", "interleave_over"],
        _about(DATA, "Several data sets one after another, or mixed until the first or the last is used up."),
    ] = "concat"
    interleave_probs: Annotated[
        tuple[float, ...], _about(DATA, "Shares of the data sets in a mixture, with commas; equal ones if left out.")
    ] = ()
    max_samples: Annotated[
        Count | None, _about(DATA, "Use only the first so many examples of each data set; all if left out.")
    ] = None
    max_rejected: Annotated[Share, _about(DATA, "Largest share of unusable records before the run is refused.")] = 0.01
    overwrite_cache: Annotated[bool, _about(DATA, "Tokenize again, even where the tokens are in the cache.")] = False

    pref_beta: Annotated[
        Positive, _about(METHOD, "dpo: how strongly the model is held to what it was; smaller lets it go farther.")
    ] = 0.1
    pref_ftx: Annotated[
        NotNegative, _about(METHOD, "dpo: weight of the loss that sft has on the chosen answers, added to the pairs'.")
    ] = 0.0
    lora_rank: Annotated[Count, _about(METHOD, "Width of a LoRA adapter.")] = 16
    lora_alpha: Annotated[
        Count | None,
        _about(METHOD, "Its scale is alpha / rank; twice the rank if left out, and 32 by the rule of 2023."),
    ] = None
    lora_dropout: Annotated[Share, _about(METHOD, "Dropout inside the adapter.")] = 0.0
    lora_target: Annotated[
        tuple[str, ...], _about(METHOD, "The modules that get one, with commas; all is every linear one.")
    ] = ("all",)
    num_layer_trainable: Annotated[
        Count, _about(METHOD, "freeze: how many layers, counted from the last, are trained.")
    ] = 3
    name_module_trainable: Annotated[str, _about(METHOD, "freeze: which of their modules, with commas.")] = "mlp"
    num_virtual_tokens: Annotated[Count, _about(METHOD, "P-tuning: length of the soft prompt.")] = 20
    encoder_hidden_size: Annotated[
        Count | None, _about(METHOD, "P-tuning: width of the prompt's encoder; the model's if left out.")
    ] = None

    nproc_per_node: Annotated[
        Count, _about(MACHINES, "Training processes, where no launcher such as torchrun starts them.")
    ] = 2
    deepspeed: Annotated[
        str | None, _about(MACHINES, "A DeepSpeed file, by path or URI, instead of ours (ZeRO-2).")
    ] = None
    bf16: Annotated[
        Switch, _about(MACHINES, "Compute in bfloat16; auto does where the device has instructions for it.")
    ] = "auto"
    fp16: Annotated[bool, _about(MACHINES, "Compute in float16, on GPUs that have no bfloat16.")] = False
    gradient_checkpointing: Annotated[
        Switch, _about(MACHINES, "Save memory at the cost of time; auto does on GPUs.")
    ] = "auto"

    save_strategy: Annotated[
        Literal["epoch", "steps", "no"],
        _about(SHOWN, "Keep a checkpoint after each epoch, or every --save_steps steps; always one at the end."),
    ] = "epoch"
    save_steps: Annotated[
        Positive,
        _about(SHOWN, "Steps between checkpoints, below 1 their share of all; alone it means --save_strategy steps."),
    ] = 500
    save_total_limit: Annotated[
        Count | None,
        _about(SHOWN, "Newest checkpoints that stay in --output_dir; if left out 2 with --store, all without."),
    ] = None
    resume: Annotated[
        bool,
        _about(SHOWN, "Resume from the newest complete checkpoint; False (or --no_resume) refuses a run that has one."),
    ] = True
    logging_steps: Annotated[
        Positive, _about(SHOWN, "Steps between two lines of progress; below 1 their share of all.")
    ] = 5
    report_to: Annotated[Literal["none", "tensorboard"], _about(SHOWN, "Write events for TensorBoard, too.")] = "none"
    metrics_port: Annotated[
        Port | None, _about(SHOWN, "Serve the run's metrics to Prometheus on this port; nowhere if left out.")
    ] = None

    @property
    def alpha(self) -> int:
        """That of a LoRA adapter: LLaMA-Factory's of the year whose limits are given, where it was left out."""
        return self.lora_alpha or (2 * self.lora_rank if self.max_source_length is None else _ALPHA_OF_2023)

    @property
    def kept(self) -> int | None:
        """How many checkpoints stay in `output_dir`, None for all."""
        return self.save_total_limit or (_KEPT_BESIDE_A_STORE if self.store else None)


@dataclass(frozen=True)
class Setting:
    """A field of TrainConfig as it is described there. `kind`: its type without None; `limits`: of a number."""

    name: str
    kind: Any
    default: Any
    group: str
    description: str
    limits: Meta

    @property
    def is_required(self) -> bool:
        return self.default is msgspec.NODEFAULT

    @property
    def choices(self) -> tuple[str, ...]:
        return get_args(self.kind) if get_origin(self.kind) is Literal else ()

    @property
    def bounds(self) -> str:
        """What a number must be, such as "at least 1"; empty where anything goes."""
        ge, gt, le, lt = self.limits.ge, self.limits.gt, self.limits.le, self.limits.lt
        if le is not None:
            return f"in {ge}..{le}"
        if lt is not None:
            return f"in {ge}..{lt}, without {lt}"
        if gt is not None:
            return f"greater than {gt}"
        return "" if ge is None else f"at least {ge}"

    def check(self, value: Any) -> None:
        """Raise UsageError for a value that is none of the choices, or not within the bounds: NaN is within none."""
        if self.choices and value not in self.choices:
            raise UsageError(f"--{self.name} {value!r} is not one of: {', '.join(self.choices)}.")
        ge, gt, le, lt = self.limits.ge, self.limits.gt, self.limits.le, self.limits.lt
        is_within = (
            (ge is None or value >= ge)
            and (gt is None or value > gt)
            and (le is None or value <= le)
            and (lt is None or value < lt)
        )
        if not is_within:
            raise UsageError(f"--{self.name} is {value}; it must be {self.bounds}.")


@functools.cache
def settings() -> tuple[Setting, ...]:
    """The settings of a run in the order of their fields, which are sorted by group."""
    found = []
    for field in msgspec.structs.fields(TrainConfig):
        kind, *metas = get_args(field.type)
        if type(None) in get_args(kind):
            kind = next(part for part in get_args(kind) if part is not type(None))
        if get_origin(kind) is Annotated:
            kind, *limits = get_args(kind)
            metas = [*limits, *metas]
        *limits, about = metas
        limit = limits[0] if limits else Meta()
        found.append(Setting(field.name, kind, field.default, about.extra["group"], about.description, limit))
    return tuple(found)


def check_config(config: TrainConfig) -> None:
    """Raise UsageError with every setting that can't work. Reads only the DeepSpeed file and template names."""
    if problems := problems_of(config):
        raise UsageError(in_one_message(problems))


def in_one_message(problems: Sequence[str]) -> str:
    """One sentence as it is; several in a list."""
    return problems[0] if len(problems) == 1 else "\n- ".join([f"{len(problems)} things can't be done:", *problems])


def problems_of(config: TrainConfig) -> list[str]:
    """What can't work, a sentence for each. A setting's own limits first: what settings say together needs them."""
    if problems := [str(error) for error in _errors(_each(config))]:
        return problems
    together = (
        *(_check_precision, _check_steps, _check_template, _check_data, _check_deepspeed),
        *(_check_method, _check_stage),
    )
    return [str(error) for error in _errors(partial(check, config) for check in together)]


def _errors(checks: Iterable[Callable[[], None]]) -> Iterator[UsageError]:
    for check in checks:
        try:
            check()
        except UsageError as error:
            yield error


def _each(config: TrainConfig) -> Iterator[Callable[[], None]]:
    for name in ("model", "run") if config.store else ():
        yield partial(_check_name, name, getattr(config, name))
    yield partial(_check_named, config)
    for setting in settings():
        if (value := getattr(config, setting.name)) is not None:
            yield partial(setting.check, value)


def _check_name(setting: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"--{setting} {name!r} can't be part of a version's name; use lower-case letters, digits, '.' and '-'."
        )


def _check_named(config: TrainConfig) -> None:
    if not config.dataset:
        raise UsageError("No data set was named; give --dataset the name of an entry in dataset_info.json.")
    if config.max_steps == 0:
        raise UsageError("--max_steps is 0; give at least 1, or -1 to train for --num_train_epochs.")


def _check_precision(config: TrainConfig) -> None:
    if config.fp16 and config.bf16 == "true":
        raise UsageError(
            "--fp16 and --bf16 are both asked for; keep one of them. A flag without a value means True, also where a "
            "variable such as ${fp16} was empty: write --fp16 False."
        )


def _check_steps(config: TrainConfig) -> None:
    for name in ("save_steps", "logging_steps"):
        if (steps := getattr(config, name)) > 1 and steps != int(steps):
            raise UsageError(f"--{name} is {steps}; give a whole number of steps, or their share, below 1.")
    if config.lr_scheduler_type in _MEASURED_SCHEDULERS and not config.val_size:
        raise UsageError(
            f"--lr_scheduler_type {config.lr_scheduler_type} goes by the validation loss; give --val_size, too."
        )
    scheduler_kwargs(config)


def scheduler_kwargs(config: TrainConfig) -> dict[str, Any]:
    """What --lr_scheduler_kwargs says. Raises UsageError when it is not JSON."""
    try:
        return msgspec.json.decode(config.lr_scheduler_kwargs or "{}", type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise UsageError(
            f'--lr_scheduler_kwargs is not JSON such as {{"min_lr": 1e-7}}: {error}; write it so, in single quotes.'
        ) from None


def _check_template(config: TrainConfig) -> None:
    check_template(config.template)


def _check_method(config: TrainConfig) -> None:
    method = f"--finetuning_type {config.finetuning_type}"
    is_soft_prompt = config.finetuning_type in ("p_tuning", "p_tuning_v2")
    if is_soft_prompt and config.packing:
        raise UsageError(
            f"{method} puts a prompt before each dialogue, which --packing has no place for; leave it out."
        )
    if config.finetuning_type == "p_tuning_v2" and config.gradient_checkpointing == "true":
        raise UsageError(f"{method} keeps its prompts in a cache, which --gradient_checkpointing drops; leave it out.")


def _check_stage(config: TrainConfig) -> None:
    if config.stage == "dpo" and config.packing:
        raise UsageError(
            "--stage dpo has its two answers in rows of their own, which --packing would mix; leave it out."
        )
    if config.stage == "dpo" and config.resume_from and config.finetuning_type in ADAPTER_METHODS:
        raise UsageError(
            "--stage dpo counts from the model without its adapter, which would leave out what --resume_from has "
            "learned; merge that with `tunegate merge`, and give the result as --model_name_or_path."
        )
    defaults = {setting.name: setting.default for setting in settings()}
    for name in _OF_PAIRS if config.stage == "sft" else ():
        if getattr(config, name) != defaults[name]:
            raise UsageError(f"--{name} is about pairs of answers; give --stage dpo, or leave it out.")


def load_deepspeed(config: TrainConfig) -> dict[str, Any]:
    """The DeepSpeed configuration. Raises UsageError when it can't be read.

    What the flags say, too, is "auto" in it: check_config sees that both say the same, and on fewer processes a run
    resumes with more batches to a step than the file says.
    """
    loaded = _read_deepspeed(config)
    if loaded.get("optimizer", {}).get("type") in _ADAM:
        loaded.pop("optimizer")  # torch's own computes the same; DeepSpeed would compile it first
    return {**loaded, **{name: "auto" for name in (*_IN_FLAGS, "train_batch_size") if name in loaded}}


def check_global_batch(config: TrainConfig, processes: int) -> None:
    """Raise UsageError when the DeepSpeed file says another global batch size than the flags do."""
    in_file = _read_deepspeed(config).get("train_batch_size", "auto")
    global_batch = config.per_device_train_batch_size * config.gradient_accumulation_steps * processes
    if in_file not in ("auto", global_batch):
        raise UsageError(
            f"{config.deepspeed} says train_batch_size {in_file}, but --per_device_train_batch_size x "
            f'--gradient_accumulation_steps x processes is {global_batch}; write "auto" there.'
        )


def arguments_of(config: TrainConfig) -> dict[str, Any]:
    """The settings that decide what a run computes: the same ones are needed to resume it."""
    settings: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(config))  # as it will be read back
    left_out = {*_NOT_PART_OF_THE_RUN, *(_OF_PAIRS if config.stage == "sft" else ())}
    kept = {name: value for name, value in settings.items() if name not in left_out}
    added = {name for name, default in _ADDED.items() if kept.get(name) == default}  # they leave old runs as they are
    kept = {name: value for name, value in kept.items() if name not in added}
    return {**kept, "lora_alpha": config.alpha, "deepspeed": load_deepspeed(config)}


def _check_data(config: TrainConfig) -> None:
    if config.val_size > 1 and not config.val_size.is_integer():
        raise UsageError(f"--val_size is {config.val_size}; give a share below 1, or a whole number of examples.")
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


_OTHER_PARALLELISM = ("tensor_parallel", "pipeline", "sequence_parallel_size", "autotp_size")
_ADAM = ("Adam", "AdamW")
_IN_FLAGS = {
    "train_micro_batch_size_per_gpu": "per_device_train_batch_size",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "gradient_clipping": "max_grad_norm",
    "optimizer.params.betas": "adam_betas",
    "optimizer.params.eps": "adam_epsilon",
    "optimizer.params.lr": "learning_rate",
    "optimizer.params.weight_decay": "weight_decay",
    "fp16.enabled": "fp16",
    "bf16.enabled": "bf16",
}


def _check_deepspeed(config: TrainConfig) -> None:
    """Raise UsageError when the file hides a schedule, or says otherwise than a flag does."""
    deepspeed = _read_deepspeed(config)
    if config.finetuning_type in ("p_tuning", "p_tuning_v2") and stage_of(deepspeed) == 3:
        method = f"--finetuning_type {config.finetuning_type}"
        raise UsageError(f"{method} and ZeRO-3 wait for each other forever; use ZeRO-2, or leave out --deepspeed.")
    if "scheduler" in deepspeed:
        raise UsageError(
            f"{config.deepspeed} has a scheduler, which would replace --lr_scheduler_type; remove it from the file."
        )
    if parallel := next((name for name in _OTHER_PARALLELISM if deepspeed.get(name)), None):
        raise UsageError(f"{config.deepspeed} has {parallel}; ZeRO shares the work out alone: remove it from the file.")
    if deepspeed.get("optimizer", {}).get("type", "AdamW") not in _ADAM and config.optim != "adamw_torch":
        raise UsageError(
            f"{config.deepspeed} has an optimizer, and --optim {config.optim} is another; remove one of them."
        )
    for path, flag in _IN_FLAGS.items():
        in_file: Any = deepspeed
        for key in path.split("."):
            in_file = in_file.get(key) if isinstance(in_file, dict) else None
        is_betas = flag == "adam_betas"
        in_flag = [config.adam_beta1, config.adam_beta2] if is_betas else getattr(config, flag)
        if isinstance(in_file, bool):
            in_file, in_flag = str(in_file).lower(), str(in_flag).lower()
        if in_file not in (None, "auto", in_flag):
            told = f"--adam_beta1 and --adam_beta2 are {in_flag}" if is_betas else f"--{flag} is {in_flag}"
            raise UsageError(f'{config.deepspeed} says {path} {in_file}, but {told}; write "auto" there, or the same.')


def local_file(uri: str, endpoint_url: str | None) -> Path:
    """The file at an s3:// or oss:// URI, in the cache. Raises UsageError for another URI, StoreError."""
    from tunegate.store.files import fetch_plain  # and with it botocore, for those that need it

    return fetch_plain(uri, default_cache(), endpoint_url=endpoint_url)


def stage_of(deepspeed: dict[str, Any]) -> int:
    """How much of a run ZeRO cuts into parts: 1 the optimizer, 2 the gradients, too, 3 the weights, too."""
    stage: int = deepspeed.get("zero_optimization", {}).get("stage", 0)
    return stage


def _read_deepspeed(config: TrainConfig) -> dict[str, Any]:
    path = Path(config.deepspeed) if config.deepspeed else ZERO2
    if config.deepspeed and "://" in config.deepspeed:
        path = local_file(config.deepspeed, config.endpoint_url)
    try:
        loaded: dict[str, Any] = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except OSError as error:
        reason = f"{error.strerror}; correct --deepspeed"
        raise UsageError(f"The DeepSpeed configuration {path} can't be read: {reason}.") from None
    except msgspec.DecodeError as error:
        no_json = f"The DeepSpeed configuration {path} is not a JSON object"
        raise UsageError(f"{no_json}: {error}; correct it there.") from None
    return loaded
