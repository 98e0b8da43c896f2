"""`tunegate train`: LLaMA-Factory's command line, of 2023 and of today, for a run that ends in a folder or a store."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin

import click
import msgspec

from tunegate import logs
from tunegate.api import environment
from tunegate.cli.options import json_option
from tunegate.training.config import TrainConfig, in_one_message, problems_of, settings

if TYPE_CHECKING:
    from tunegate.api.versions import ModelVersion
    from tunegate.training import Preparing, Progress, Uploading

F = TypeVar("F", bound=Callable[..., Any])

_FROM_ENVIRONMENT = {"store": environment.STORE, "endpoint_url": environment.ENDPOINT_URL}


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
        from tunegate.api.errors import UsageError
        from tunegate.training.compat.llamafactory import translate

        translation = translate(_with_file(args), frozenset({*(setting.name for setting in settings()), "json"}))
        ctx.meta["notes"] = translation.notes
        problems = [*translation.refused, *self._wrong_values(ctx, list(translation.arguments))]
        if problems:  # and what is wrong with the others, so that a line needs one correction
            raise UsageError(in_one_message([*problems, *_further_problems(ctx.params)]))
        return super().parse_args(ctx, list(translation.arguments))

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return ["[FILE.yaml]", *super().collect_usage_pieces(ctx)]

    def _wrong_values(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Fill the context's parameters, and say which values are none of their kind."""
        found, _, _ = self.make_parser(ctx).parse_args(args)
        problems = []
        for parameter in self.get_params(ctx):
            if not parameter.is_eager:
                try:
                    parameter.handle_parse_result(ctx, found, [])
                except click.ClickException as error:
                    problems.append(error.format_message())
        return problems

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        shown = {param.opts[0]: param.get_help_record(ctx) for param in self.get_params(ctx)}
        for group, members in groupby(settings(), lambda setting: setting.group):
            with formatter.section(group):
                formatter.write_dl([record for member in members if (record := shown.pop(f"--{member.name}"))])
        with formatter.section("Options"):
            formatter.write_dl([record for record in shown.values() if record])


def _with_file(args: list[str]) -> list[str]:
    """A file of settings in front is read as flags; those after it say otherwise, as `--name value` or `name=value`."""
    from tunegate.api.errors import UsageError
    from tunegate.training.compat.yaml_file import SUFFIXES, arguments_of_file

    if not args or args[0].startswith("-") or not args[0].endswith(SUFFIXES):
        return args
    name, *rest = args
    try:
        text = Path(name).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8, as which it is to be saved"
        raise UsageError(f"{name} can't be read: {reason}; give the path of a file of settings.") from None
    pairs = [f"--{word}" if re.match(r"\w+=", word) else word for word in rest]
    return [*arguments_of_file(text, name), *pairs]


def _further_problems(given: dict[str, Any]) -> list[str]:
    """What else can't work, as far as the settings that could be read say."""
    from tunegate.api.errors import UsageError

    read = {name: value for name, value in given.items() if isinstance(value, str | int | float | tuple)}
    defaults = {setting.name: None if setting.is_required else setting.default for setting in settings()}
    store = read.pop("store_uri", None)
    del defaults["store"]
    try:
        return problems_of(config_of({**defaults, "store_uri": store, **{n: read[n] for n in read if n != "as_json"}}))
    except UsageError as error:
        return [str(error)]


def _options(command: F) -> F:
    """An option for each setting of a run, of the setting's type and with its default."""
    for setting in reversed(settings()):
        options: dict[str, Any] = {"help": setting.description, "type": setting.kind}
        if setting.kind is bool:
            options |= {"type": click.BOOL, "metavar": "[BOOLEAN]"}
        elif setting.choices:
            options["type"] = _Spelled(setting.choices)
        elif get_origin(setting.kind) is tuple:
            options["type"] = _Several(click.types.convert_type(get_args(setting.kind)[0]))
        if setting.kind is bool or "true" in setting.choices:  # a yes or no may stand alone, and then means yes
            options |= {"is_flag": False, "flag_value": "true"}
        if setting.default not in (None, "", (), msgspec.NODEFAULT):
            is_several = isinstance(setting.default, tuple)
            options |= {"default": ",".join(setting.default) if is_several else setting.default, "show_default": True}
        if setting.name in _FROM_ENVIRONMENT:
            options |= {"envvar": _FROM_ENVIRONMENT[setting.name], "show_envvar": True}
        name = "store_uri" if setting.name == "store" else setting.name
        command = click.option(f"--{setting.name}", name, **options)(command)
    return command


@click.command(
    cls=_Train,
    short_help="Fine-tune a model and publish its checkpoints.",
    context_settings={"max_content_width": 120},
)
@_options
@json_option
@click.pass_context
def command(context: click.Context, /, as_json: bool, **given: Any) -> None:
    """Fine-tune a model, on this machine, under a launcher of yours, or as one node of a PyTorchJob.

    FILE.yaml holds settings as LLaMA-Factory's examples do; flags after it win.

    Every epoch, or every --save_steps steps, a checkpoint is kept and, with a store, published during training.
    A run that was killed resumes from its newest complete checkpoint when the same command is given again; one that is
    complete only reports. Flags of LLaMA-Factory mean what they mean there.
    """
    config = config_of(given)
    is_rank = "LOCAL_RANK" in os.environ  # a launcher started this process for each rank
    logs.configure()
    if is_rank:
        from tunegate.training.launch.external import train
    else:
        from tunegate.training import train
    is_silent = is_rank and os.environ["RANK"] != "0"
    for note in () if is_silent else context.meta["notes"]:
        click.echo(note, err=True)
    versions = train(config, None if as_json or is_silent else _report)
    if is_silent:
        return
    if as_json:
        from tunegate.api.codec import to_json

        click.echo(to_json(versions), nl=False)
    elif not config.store:
        click.echo(f"The run is complete; its checkpoints are in {config.output_dir}.")
    elif not versions:
        click.echo("This node's part of the run is complete; the first node lists the versions.")
    else:
        several = f"it has {len(versions)} versions, the newest is" if len(versions) > 1 else "its version is"
        click.echo(f"The run is complete; {several} {versions[-1].name}")


def config_of(given: dict[str, Any]) -> TrainConfig:
    """The run that the given options ask for. Raises UsageError when one that has no default is missing."""
    from tunegate.api.errors import UsageError
    from tunegate.training.compat.llamafactory import name_of

    missing = [f"--{setting.name}" for setting in settings() if setting.is_required and not given[setting.name]]
    if missing:
        listed = " and ".join(filter(None, [", ".join(missing[:-1]), missing[-1]]))
        raise UsageError(f"A run needs {listed}; `tunegate train --help` says what they are.")
    given = dict(given)
    store = given.pop("store_uri")
    if store and not given["model"]:
        raise UsageError(f"Versions in {store} need a name; give --model, or no --store (TUNEGATE_STORE) to keep none.")
    known = {name: value for name, value in given.items() if value is not None}
    whole = {name: int(known[name]) for name in ("save_steps", "logging_steps") if known.get(name, 0.5) % 1 == 0}
    return TrainConfig(store=store, **{**known, **whole, "run": given["run"] or name_of(given["output_dir"])})


def _report(news: Preparing | Progress | Uploading | ModelVersion) -> None:
    from tunegate.api.versions import ModelVersion
    from tunegate.training import Preparing, Uploading

    if isinstance(news, Preparing):
        click.echo(preparing_line(news))
    elif isinstance(news, ModelVersion):
        click.echo(f"published {news.name}  {news.digest}")
    elif isinstance(news, Uploading):
        click.echo(str(news))
    else:
        measured = (
            (news.loss, "loss {:.4f}"),
            (news.eval_loss, "validation loss {:.4f}"),
            (news.rewards_accuracies, "{:.0%} of pairs right"),
            (news.rewards_margins, "margin {:.3f}"),
            (news.eval_rewards_accuracies, "{:.0%} of pairs right"),
            (news.tokens_per_second, "{:.0f} tokens/s"),
            (news.padding, "{:.0%} padding"),
            (news.mfu, "MFU {:.0%}"),
        )
        known = [text.format(value) for value, text in measured if value is not None]
        steps = f"step {news.current_steps}/{news.total_steps}"
        click.echo("  ".join([steps, f"epoch {news.epoch:.2f}", *known, f"{news.remaining_time} left"]))


def preparing_line(news: Preparing) -> str:
    speed = f"{news.records_per_second:.0f} records/s"
    unread = ", ".join(f"{key} ({count})" for key, count in sorted(news.unread.items()))
    read = f"{news.dataset}  {news.records} records read  {speed}  {news.share:.0%} tokenized"
    lines = [read]
    if news.read_as:
        lines.append(f"{news.dataset}  read as {news.read_as}")
    if unread:
        lines.append(f"{news.dataset}  not trained, with their records: {unread}")
    return "\n".join(lines)
