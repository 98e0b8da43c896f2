"""`tunegate data`: what a run would train on, without the run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tunegate.cli.options import json_option, print_table

if TYPE_CHECKING:
    from tunegate.training import Preparing, TrainConfig
    from tunegate.training.data.prepare import Account

# What `tunegate train` needs, and data has no use for.
_FILLED_IN = ("--output_dir", ".", "--model", "data")


@click.group()
def command() -> None:
    """Look at data before it is trained on."""


@command.command(
    context_settings={"ignore_unknown_options": True}, options_metavar="", short_help="Tokenize data sets."
)
@click.argument("flags", nargs=-1, type=click.UNPROCESSED, metavar="FLAGS OF TRAIN...")
@click.option(
    "--rejects", type=click.Path(dir_okay=False, path_type=Path), help="Write the rejected rows to this file."
)
@json_option
def prepare(flags: tuple[str, ...], rejects: Path | None, as_json: bool) -> None:
    """Tokenize the data sets of a `tunegate train` command, and say what became of every row.

    Give the flags of that command; the run that is started with them finds the tokens in the cache (TUNEGATE_CACHE).
    """
    from tunegate.api.codec import to_json
    from tunegate.training.data.prepare import account_of
    from tunegate.training.data.prepare import prepare as tokenize

    config = _config(flags)
    prepared = tokenize(config, _tokenizer(config), None if as_json else _say, rejects=rejects)
    account = account_of(prepared, config)
    if as_json:
        click.echo(to_json(account), nl=False)
    else:
        _show(account)


def _config(flags: tuple[str, ...]) -> TrainConfig:
    from tunegate.cli.train import command as train
    from tunegate.cli.train import config_of
    from tunegate.training.config import check_config

    context = train.make_context("tunegate data prepare", [*_FILLED_IN, *flags])
    settings = {name: value for name, value in context.params.items() if name != "as_json"}
    config = config_of(settings)
    check_config(config)
    return config


def _tokenizer(config: TrainConfig) -> Path:
    from tunegate.store import Store
    from tunegate.training.run.base_model import base_folder

    store = Store.open(config.store, endpoint_url=config.endpoint_url) if config.store else None
    return base_folder(config, store)[0]


def _say(news: Preparing) -> None:
    from tunegate.cli.train import preparing_line

    click.echo(preparing_line(news))


def _show(account: Account) -> None:
    print_table(
        "Data sets",
        ("data set", "rows", "rejected", "share", "tokens", "trained", "cut turns", "cut tokens"),
        [
            (
                one.name,
                one.rows,
                sum(one.rejected.values()),
                f"{account.shares[one.name]:.1%}",
                one.tokens,
                one.trained_tokens,
                one.cut_turns,
                one.cut_tokens,
            )
            for one in account.datasets
        ],
    )
    reasons = [(one.name, count, reason) for one in account.datasets for reason, count in one.rejected.items()]
    if reasons:
        print_table("Rejected", ("data set", "rows", "reason"), reasons)
    click.echo(
        f"{account.train_rows} rows are trained on, {account.validation_rows} held out; "
        f"padding {account.padding:.1%}, or {account.padding_packed:.1%} with --packing."
    )
