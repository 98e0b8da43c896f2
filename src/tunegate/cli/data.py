"""`tunegate data`: what a run would train on, without the run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tunegate.cli.options import json_option, print_table

if TYPE_CHECKING:
    from tunegate.training import Preparing
    from tunegate.training.data.examples import Account

# What `tunegate train` needs, and data has no use for.
_UNUSED = ("--output_dir", ".", "--model", "data", "--run", "data")


@click.group()
def command() -> None:
    """Look at data before it is trained on."""


@command.command(
    context_settings={"ignore_unknown_options": True}, options_metavar="", short_help="Tokenize data sets."
)
@click.argument("flags", nargs=-1, type=click.UNPROCESSED, metavar="FLAGS OF TRAIN...")
@click.option(
    "--rejects", type=click.Path(dir_okay=False, path_type=Path), help="Write the rejected records to this file."
)
@json_option
def prepare(flags: tuple[str, ...], rejects: Path | None, as_json: bool) -> None:
    """Tokenize the data sets of a `tunegate train` command, and say what became of every record.

    Give the flags of that command, or its file of settings; the run that is started with them finds the tokens in the
    cache (TUNEGATE_CACHE).
    """
    from tunegate.api.codec import to_json
    from tunegate.cli.train import command as train
    from tunegate.cli.train import config_of, preparing_line
    from tunegate.store import Store
    from tunegate.training.config import check_config
    from tunegate.training.data.examples import account_of
    from tunegate.training.data.prepare import prepare as tokenize
    from tunegate.training.run.base_model import base_folder

    context = train.make_context("tunegate data prepare", [*flags, *_UNUSED])
    config = config_of({name: value for name, value in context.params.items() if name != "as_json"})
    check_config(config)
    store = Store.open(config.store, endpoint_url=config.endpoint_url) if config.store else None
    tokenizer_folder, _ = base_folder(config, store)

    def report(news: Preparing) -> None:
        click.echo(preparing_line(news))

    data = tokenize(config, tokenizer_folder, None if as_json else report, rejects=rejects)
    account = account_of(data, config)
    if as_json:
        click.echo(to_json(account), nl=False)
    else:
        _show(account)


def _show(account: Account) -> None:
    print_table(
        "Data sets",
        ("data set", "examples", "rejected", "share", "tokens", "trained", "cut turns", "cut tokens"),
        [
            (
                dataset.name,
                dataset.examples,
                dataset.rejected_records,
                f"{account.shares[dataset.name]:.1%}",
                dataset.tokens,
                dataset.trained_tokens,
                dataset.cut_turns,
                dataset.cut_tokens,
            )
            for dataset in account.datasets
        ],
    )
    if read_as := [(data.name, data.read_as) for data in account.datasets if data.read_as]:
        print_table("Recognized", ("data set", "read as"), read_as)
    rejected = [
        (dataset.name, rejects.count, reason, rejects.first)
        for dataset in account.datasets
        for reason, rejects in sorted(dataset.rejected.items(), key=lambda item: -item[1].count)
    ]
    if rejected:
        print_table("Rejected", ("data set", "records", "reason", "the first of them"), rejected)
    if unread := [(data.name, key, count) for data in account.datasets for key, count in sorted(data.unread.items())]:
        print_table("Not trained", ("data set", "key", "records"), unread)
    packed = "" if account.padding_packed is None else f", or {account.padding_packed:.1%} with --packing"
    click.echo(
        f"{account.train_examples} examples are trained on, {account.validation_examples} are the validation split; "
        f"padding {account.padding:.1%}{packed}."
    )
