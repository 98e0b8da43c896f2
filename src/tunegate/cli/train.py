"""`tunegate train`: LLaMA-Factory's command line, of 2023 and of today, for a run that ends in a folder or a store."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin

import click
import msgspec

from tunegate.cli.options import json_option

if TYPE_CHECKING:
    from tunegate.api.versions import ModelVersion
    from tunegate.training import Preparing, Progress, TrainConfig

F = TypeVar("F", bound=Callable[..., Any])

GROUPS = {
    "What is trained, on what": {
        "model_name_or_path": "The base model: a folder, here or in a bucket, or a version in the store.",
        "dataset_dir": "The folder with dataset_info.json.",
        "dataset": "Data sets named there, or files and folders by path or URI; several with commas.",
        "output_dir": "Where the run keeps its checkpoints and its log.",
        "finetuning_type": "All weights, an adapter, the last layers, or learned prompts (P-tuning, P-tuning v2).",
        "template": "The chat template, saved beside the weights.",
    },
    "Where versions go": {
        "store": "The model store to publish checkpoints in; without one they stay in --output_dir.",
        "endpoint_url": "The S3 endpoint, where it is not AWS's. Credentials come from AWS's variables or files.",
        "model": "First part of the versions' names, <model>/<run>/checkpoint-<step>; needed with a store.",
        "run": "Second part of the versions' names; that of --output_dir if left out. --run_name under torchrun.",
    },
    "Steps": {
        "per_device_train_batch_size": "Dialogues for each process at a time.",
        "gradient_accumulation_steps": "Batches summed up before each step.",
        "learning_rate": "Highest learning rate; about 5e-5 suits all weights, 1e-4 adapters, 1e-2 prompts.",
        "num_train_epochs": "Times the data is read.",
        "max_steps": "Stop after so many steps; -1 goes by --num_train_epochs.",
        "lr_scheduler_type": "How the learning rate falls: cosine, linear, constant or constant_with_warmup.",
        "warmup_ratio": "Share of the steps in which the learning rate grows.",
        "warmup_steps": "The same as a number of steps; above 0 it wins.",
        "weight_decay": "Weight decay of AdamW.",
        "max_grad_norm": "Gradients longer than this are shortened to it; 0 leaves them.",
        "seed": "Decides the order of the data and the first adapter weights.",
    },
    "Data": {
        "cutoff_len": "Most tokens of a dialogue.",
        "truncation": "A longer one keeps its first turns, keeps its last turns, or is left out and counted.",
        "max_source_length": "The rule of 2023 instead: most tokens of a question,",
        "max_target_length": "and of an answer; give both or none.",
        "packing": "Several dialogues in one row of --cutoff_len tokens, none of which sees another.",
        "is_shuffle": "Read the rows in a new order in each epoch; False goes by their files.",
        "val_size": "Rows (above 1) or their share that are held out and measured with each checkpoint.",
        "mix_strategy": "Several data sets one after another, or mixed until the first or the last is used up.",
        "interleave_probs": "Shares of the data sets in a mixture, with commas; equal ones if left out.",
        "max_samples": "Use only the first so many rows of each data set.",
        "max_rejected": "Largest share of unusable rows before the run is refused.",
        "overwrite_cache": "Make the tokens anew, even where they were kept.",
    },
    "Adapters, layers and prompts": {
        "lora_rank": "Width of a LoRA adapter.",
        "lora_alpha": "Its scale is alpha / rank.",
        "lora_dropout": "Dropout inside the adapter.",
        "lora_target": "The modules that get one, with commas; all is every linear one.",
        "num_layer_trainable": "freeze: how many layers, counted from the last, are trained.",
        "name_module_trainable": "freeze: which of their modules, with commas.",
        "num_virtual_tokens": "P-tuning: length of the learned prompt.",
        "encoder_hidden_size": "P-tuning: width of the prompt's encoder; the model's if left out.",
    },
    "Machines": {
        "nproc_per_node": "Training processes, where no launcher such as torchrun starts them.",
        "deepspeed": "A DeepSpeed configuration file instead of ours (ZeRO-2).",
        "bf16": "Compute in bfloat16; auto does where the machine is quick at it.",
        "fp16": "Compute in float16, on GPUs that have no bfloat16.",
        "gradient_checkpointing": "Save memory at the cost of time; auto does on GPUs.",
    },
    "Checkpoints and what is shown": {
        "save_strategy": "Keep a checkpoint after each epoch, or every --save_steps steps; always one at the end.",
        "save_steps": "Steps between checkpoints with --save_strategy steps.",
        "save_total_limit": "Newest checkpoints that stay in --output_dir; if left out 2 with --store, all without.",
        "resume": "Go on from the newest complete checkpoint; False (or --no_resume) refuses a run that has one.",
        "logging_steps": "Steps between two lines of progress.",
        "report_to": "Write events for TensorBoard, too.",
        "metrics_port": "Serve the run's metrics to Prometheus on this port.",
    },
}
_NEEDED = ("model_name_or_path", "dataset", "output_dir")
_FROM_ENVIRONMENT = {"store": "TUNEGATE_STORE", "endpoint_url": "AWS_ENDPOINT_URL"}


class _Spelled(click.Choice):  # type: ignore[type-arg]
    """One of several words, whatever its case, dashes and underscores: P-tuning v2 is p_tuning_v2."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        letters = {re.sub(r"[^a-z0-9]", "", word): word for word in self.choices}
        return super().convert(letters.get(re.sub(r"[^a-z0-9]", "", str(value).lower()), value), param, ctx)


class _Several(click.ParamType):  # type: ignore[type-arg]
    """Values with commas between them."""

    name = "several"

    def __init__(self, kind: click.ParamType[Any]) -> None:
        self._kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        parts = value.split(",") if isinstance(value, str) else value
        texts = [part.strip() if isinstance(part, str) else part for part in parts]
        return tuple(self._kind.convert(text, param, ctx) for text in texts if text != "")

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return f"{self._kind.name.upper()}[,...]"


class _Train(click.Command):
    """Reads LLaMA-Factory's spellings, and shows the options by what they are about."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        from tunegate.training.compat.llamafactory import understand

        known = frozenset(name for names in GROUPS.values() for name in names)
        understood = understand(args, known)
        ctx.meta["notes"] = understood.notes
        return super().parse_args(ctx, list(understood.words))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        shown = {param.opts[0]: param.get_help_record(ctx) for param in self.get_params(ctx)}
        for title, names in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([record for name in names if (record := shown.pop(f"--{name}"))])
        with formatter.section("Options"):
            formatter.write_dl([record for record in shown.values() if record])


def _options(command: F) -> F:
    """An option for each setting of a run, of the setting's type and with its default."""
    from tunegate.training.config import TrainConfig

    fields = {field.name: field for field in msgspec.structs.fields(TrainConfig)}
    for name in reversed([name for names in GROUPS.values() for name in names]):
        field, text = fields[name], next(names[name] for names in GROUPS.values() if name in names)
        settings: dict[str, Any] = {"help": text, **_kind(field.type)}
        if field.default not in (None, "", (), msgspec.NODEFAULT):
            default = field.default
            settings |= {"default": ",".join(default) if isinstance(default, tuple) else default, "show_default": True}
        if name in _FROM_ENVIRONMENT:
            settings |= {"envvar": _FROM_ENVIRONMENT[name], "show_envvar": True}
        command = click.option(f"--{name}", "store_uri" if name == "store" else name, **settings)(command)
    return command


def _kind(annotation: Any) -> dict[str, Any]:
    """How click reads a setting of this type. A yes or no may stand alone, and then means yes."""
    if isinstance(annotation, UnionType):
        annotation = next(each for each in get_args(annotation) if each is not type(None))
    arguments = get_args(annotation)
    if annotation is bool:
        return {"type": click.BOOL, "is_flag": False, "flag_value": "true", "metavar": "[BOOLEAN]"}
    if get_origin(annotation) is Literal:
        alone = {"is_flag": False, "flag_value": "true"} if "true" in arguments else {}
        return {"type": _Spelled(arguments), **alone}
    if get_origin(annotation) is tuple:
        return {"type": _Several(click.types.convert_type(arguments[0]))}
    return {"type": annotation}


@click.command(
    cls=_Train,
    short_help="Fine-tune a model and publish its checkpoints.",
    context_settings={"max_content_width": 120},
)
@_options
@json_option
@click.pass_context
def command(context: click.Context, /, as_json: bool, **settings: Any) -> None:
    """Fine-tune a model, on this machine, under a launcher of yours, or as one node of a PyTorchJob.

    Every epoch, or every --save_steps steps, a checkpoint is kept and, with a store, published while training goes on.
    A run that was killed goes on from its newest complete checkpoint when the same command is given again; one that is
    complete only reports. Flags of LLaMA-Factory mean what they mean there.
    """
    config = config_of(settings)
    is_rank = "LOCAL_RANK" in os.environ  # a launcher started this process for each rank
    if is_rank:
        from tunegate.training.launch.external import train
    else:
        from tunegate.training import train
    is_silent = is_rank and os.environ["RANK"] != "0"
    for note in () if is_silent else context.meta["notes"]:
        click.echo(note, err=True)
    versions = train(config, None if as_json or is_silent else _say)
    if is_silent:
        return
    if as_json:
        from tunegate.api.codec import to_json

        click.echo(to_json(versions), nl=False)
    else:
        click.echo(_end(config, versions))


def config_of(settings: dict[str, Any]) -> TrainConfig:
    """The run that was asked for. Raises UsageError when something that only a person can say is missing."""
    from tunegate.api.errors import UsageError
    from tunegate.training import TrainConfig
    from tunegate.training.compat.llamafactory import name_of

    missing = [f"--{name}" for name in _NEEDED if not settings[name]]
    if missing:
        raise UsageError(f"A run needs {_listed(missing)}; `tunegate train --help` says what they are.")
    store = settings.pop("store_uri")
    if store and not settings["model"]:
        raise UsageError(f"Versions in {store} need a name; give --model, or no --store (TUNEGATE_STORE) to keep none.")
    given = {name: value for name, value in settings.items() if value is not None}
    return TrainConfig(store=store, **{**given, "run": settings["run"] or name_of(settings["output_dir"])})


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _end(config: TrainConfig, versions: list[ModelVersion]) -> str:
    if not config.store:
        return f"The run is complete; its checkpoints are in {config.output_dir}."
    if not versions:
        return "This node's part of the run is complete; the first node tells of the versions."
    return f"The run is complete; it has {len(versions)} versions, the newest is {versions[-1].name}"


def _say(news: Preparing | Progress | ModelVersion) -> None:
    from tunegate.api.versions import ModelVersion
    from tunegate.training import Preparing

    if isinstance(news, Preparing):
        click.echo(preparing_line(news))
        return
    if isinstance(news, ModelVersion):
        click.echo(f"published {news.name}  {news.digest}")
        return
    click.echo(_line(news))


def _line(news: Progress) -> str:
    said = [f"step {news.current_steps}/{news.total_steps}", f"epoch {news.epoch:.2f}"]
    for value, text in (
        (news.loss, "loss {:.4f}"),
        (news.eval_loss, "held-out loss {:.4f}"),
        (news.tokens_per_second, "{:.0f} tokens/s"),
        (news.padding, "{:.0%} padding"),
        (news.mfu, "MFU {:.0%}"),
    ):
        if value is not None:
            said.append(text.format(value))
    return "  ".join([*said, f"{news.remaining_time} left"])


def preparing_line(news: Preparing) -> str:
    return f"{news.dataset}  {news.rows} rows read  {news.rows_per_second:.0f} rows/s  {news.share:.0%} tokenized"
