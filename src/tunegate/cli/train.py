"""`tunegate train`: fine-tune a model under torchrun and publish its checkpoints as it goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tunegate.cli.options import json_option, store_options

if TYPE_CHECKING:
    from tunegate.api.versions import ModelVersion
    from tunegate.training import Progress

F = TypeVar("F", bound=Callable[..., Any])


def _option(name: str, **settings: Any) -> Callable[[F], F]:
    """An option in LLaMA-Factory's spelling, with underscores, that also answers to dashes."""
    spellings = dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}"))
    return click.option(*spellings, name, show_default=settings.get("default") is not None, **settings)


@click.command(short_help="Fine-tune a model and publish its checkpoints.")
@_option(
    "model_name_or_path", required=True, metavar="VERSION|FOLDER", help="The base: a version in the store, or a folder."
)
@_option("dataset_dir", required=True, metavar="DIR", help="The folder with dataset_info.json.")
@_option("dataset", required=True, metavar="NAME[,NAME]", help="Data sets named in dataset_info.json.")
@_option("output_dir", required=True, metavar="DIR", help="Where the run keeps its checkpoints and its log.")
@_option("model", required=True, help="First part of the versions' names: <model>/<run>/checkpoint-<step>.")
@_option("run", required=True, help="Second part of the versions' names; one run, one name.")
@_option(
    "finetuning_type", type=click.Choice(["lora", "full"]), default="lora", help="Train an adapter, or all weights."
)
@_option("template", default="chatml", help="The chat template, saved beside the weights.")
@_option("per_device_train_batch_size", type=int, default=8, help="Dialogues for each process and step.")
@_option("gradient_accumulation_steps", type=int, default=1, help="Batches summed up before each step.")
@_option("learning_rate", type=float, default=5e-5, help="Highest learning rate; about 1e-3 suits small adapters.")
@_option("num_train_epochs", type=float, default=3.0, help="Times the data is read.")
@_option("max_steps", type=int, default=-1, help="Stop after so many steps; -1 goes by --num_train_epochs.")
@_option("lr_scheduler_type", default="cosine", help="How the learning rate falls: cosine, linear or constant.")
@_option("warmup_ratio", type=float, default=0.0, help="Share of the steps in which the learning rate grows.")
@_option("cutoff_len", type=int, default=2048, help="Most tokens of a dialogue; turns beyond it are left out.")
@_option("seed", type=int, default=42, help="Decides the order of the data and the first adapter weights.")
@_option("lora_rank", type=int, default=16, help="Width of the adapter.")
@_option("lora_alpha", type=int, default=32, help="Its scale is alpha / rank.")
@_option("lora_dropout", type=float, default=0.0, help="Dropout inside the adapter.")
@_option("max_samples", type=int, help="Use only the first so many rows of each data set.")
@_option("nproc_per_node", type=int, default=2, help="Training processes.")
@_option("deepspeed", metavar="FILE", help="A DeepSpeed configuration instead of ours (ZeRO-2).")
@_option("save_strategy", type=click.Choice(["epoch", "steps"]), default="epoch", help="When to publish a checkpoint.")
@_option("save_steps", type=int, default=500, help="Steps between checkpoints with --save_strategy steps.")
@_option("bf16", type=click.Choice(["auto", "true", "false"]), default="auto", help="Compute in bfloat16.")
@_option("logging_steps", type=int, default=5, help="Steps between two lines of progress.")
@_option("max_rejected", type=float, default=0.01, help="Largest share of unusable rows before the run is refused.")
@click.option(
    "--resume/--no-resume", default=True, show_default=True, help="Go on from the newest complete checkpoint."
)
@store_options
@json_option
def command(store_uri: str, dataset: str, as_json: bool, **settings: Any) -> None:
    """Fine-tune a model with DeepSpeed under torchrun, on this machine or as one node of a PyTorchJob.

    Every epoch, or every --save_steps steps, a checkpoint is published to the store while training goes on. A run that
    was killed goes on from its newest complete checkpoint when the same command is given again; one that is complete
    only reports.
    """
    from tunegate.training import TrainConfig, train

    names = tuple(name.strip() for name in dataset.split(",") if name.strip())
    versions = train(TrainConfig(store=store_uri, dataset=names, **settings), None if as_json else _say)
    if as_json:
        from tunegate.api.resource import to_json

        click.echo(to_json(versions), nl=False)
    elif not versions:
        click.echo("This node's part of the run is complete; the first node tells of the versions.")
    else:
        click.echo(f"The run is complete; it has {len(versions)} versions, the newest is {versions[-1].name}")


def _say(news: Progress | ModelVersion) -> None:
    from tunegate.api.versions import ModelVersion

    if isinstance(news, ModelVersion):
        click.echo(f"published {news.name}  {news.digest}")
        return
    minutes, seconds = divmod(round(news.remaining_seconds), 60)
    click.echo(
        f"step {news.current_steps}/{news.total_steps}  epoch {news.epoch:.2f}  loss {news.loss:.4f}  "
        f"{news.tokens_per_second:.0f} tokens/s  {minutes}:{seconds:02d} left"
    )
