"""`tunegate plan`: what training or serving takes of memory, time and money, before a card is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from tunegate.api.errors import UsageError
from tunegate.cli.options import json_option, print_table

if TYPE_CHECKING:
    from tunegate.models.cards import Card
    from tunegate.models.memory import Server
    from tunegate.training.config import TrainConfig
    from tunegate.training.loop.estimate import Estimate
    from tunegate.training.loop.memory import Memory

F = TypeVar("F", bound=Callable[..., Any])

_GIB = 2**30


@click.group(short_help="What training or serving takes: memory, time and money.")
def command() -> None:
    """Say what fits on which cards, and how long it takes, by arithmetic: nothing is loaded, started or asked for."""


def _of_cards(command: F) -> F:
    for option in (
        click.option("--price", type=click.FloatRange(0), help="What one card costs in an hour, in your currency."),
        click.option(
            "--mfu",
            default=0.35,
            show_default=True,
            type=click.FloatRange(0, 1, min_open=True),
            help="Share of a card's FLOP/s that the model's own work gets: the log of a run tells it.",
        ),
        click.option("--cards", default=1, show_default=True, type=click.IntRange(1), help="How many, on all nodes."),
        click.option("--card", "card_name", required=True, help="Such as H100, A100-40GB, or its memory: 24GiB."),
    ):
        command = option(command)
    return command


@command.command(
    short_help="Of a training run.",
    context_settings={"ignore_unknown_options": True, "max_content_width": 120},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[FILE.yaml] [TRAIN OPTIONS]...")
@click.option(
    "--tokens", type=click.IntRange(1), help="Of one epoch: tells the hours, and with --price what they cost."
)
@_of_cards
@json_option
def train(
    arguments: tuple[str, ...],
    card_name: str,
    cards: int,
    mfu: float,
    price: float | None,
    tokens: int | None,
    as_json: bool,
) -> None:
    """Say what each card needs, part by part, for the run that `tunegate train` with the same options would be.

    --model_name_or_path is a folder with the base's config.json; its weights need not be there. Every row counts as
    --cutoff_len long, with each token trained. Exits with 1 where that does not fit, and shows settings that do.
    """
    from tunegate.models.cards import read_card
    from tunegate.training.loop.estimate import check_cards, estimates, usable

    card, config = read_card(card_name), _config_of(arguments)
    traced, found = estimates(config, _shape(config.model_name_or_path), card, cards, mfu)
    asked, chosen = found[0], next((estimate for estimate in found if estimate.fits), None)
    if as_json:
        click.echo(msgspec.json.encode([asdict(estimate) for estimate in found]))
    else:
        counted = f"{traced.parameters / 1e9:.3g} G parameters, {traced.trained / 1e9:.3g} G of them trained"
        _show_parts(counted, asked.memory)
        leaves = f"{card.name} leaves {_gib(usable(card))} of {_gib(card.memory)} GiB"
        _show_settings(f"{leaves}; as asked for, and otherwise", found)
    if tokens and chosen and chosen.tokens_per_second and not as_json:
        hours = tokens * config.num_train_epochs / chosen.tokens_per_second / 3600
        cost = f", {hours * cards * price:,.2f} at {price:g} for a card's hour" if price is not None else ""
        click.echo(
            f"{tokens * config.num_train_epochs:,.0f} tokens take {hours:,.1f} hours with {chosen.setting}{cost}"
        )
    check_cards(found, card)


def _config_of(arguments: Sequence[str]) -> TrainConfig:
    """The run that these arguments of `tunegate train` ask for; its data and its folder play no part."""
    from tunegate.cli.train import command as train
    from tunegate.cli.train import config_of

    with train.make_context("tunegate train", list(arguments)) as context:
        given = {name: value for name, value in context.params.items() if name != "as_json"}
        given |= {
            "dataset": given["dataset"] or ("any",),
            "output_dir": given["output_dir"] or "plan",
            "store_uri": None,
        }
        return config_of(given)


def _shape(model: str) -> Any:
    from tunegate.models.network import read_config

    if not (Path(model) / "config.json").is_file():
        raise UsageError(f"{model} is no folder with a config.json; put the model's there: no more is read.")
    return read_config(Path(model))


def _show_parts(title: str, memory: Memory) -> None:
    rows = [(name, _gib(getattr(memory, name))) for name in ("weights", "gradients", "optimizer", "buckets")]
    rows += [("a step", _gib(memory.step)), ("in all", _gib(memory.card)), ("in the host's memory", _gib(memory.host))]
    print_table(title, ("as asked for", "GiB a card"), rows)


def _show_settings(title: str, found: Sequence[Estimate]) -> None:
    rows = []
    for estimate in found:
        speed = f"{estimate.tokens_per_second:,.0f}" if estimate.tokens_per_second else "?"
        fitting = estimate.rows if estimate.fits else "does not fit"
        rows.append((str(estimate.setting), _gib(estimate.memory.card), fitting, speed))
    print_table(title, ("", "GiB a card", "rows", "tokens/s"), rows)


@command.command(short_help="Of a server.")
@click.argument("model", metavar="FOLDER")
@click.option("--streams", default=16, show_default=True, type=click.IntRange(1), help="Conversations at a time.")
@click.option("--length", default=2048, show_default=True, type=click.IntRange(1), help="Tokens of each, with answer.")
@click.option(
    "--mbu",
    default=0.6,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True),
    help="Share of a card's memory bandwidth that writing an answer reaches.",
)
@_of_cards
@json_option
def serve(
    model: str,
    card_name: str,
    cards: int,
    mfu: float,
    price: float | None,
    streams: int,
    length: int,
    mbu: float,
    as_json: bool,
) -> None:
    """Say how many conversations fit, spread over more cards or with smaller weights, and how fast they are answered.

    FOLDER holds the model's config.json; its weights need not be there. By the arithmetic that `tunegate serve --engine
    vllm` starts with. Exits with 1 where nothing holds as many --streams.
    """
    from tunegate.models.cards import read_card
    from tunegate.models.memory import Load, Weights, estimate_servers
    from tunegate.models.network import network_of_shapes
    from tunegate.training.loop.mfu import work_of

    card = read_card(card_name)
    _shape(model)
    network = network_of_shapes(Path(model), model)
    work, parameters = work_of(network), sum(weight.numel() for weight in network.parameters())
    weights, load = Weights(parameters, work.body, work.head), Load(streams, length, mfu, mbu)
    found = estimate_servers(Path(model), weights, card, cards, load)
    if as_json:
        click.echo(msgspec.json.encode([asdict(server) for server in found]))
    else:
        _show_servers(found, card, cards, price, streams, length)
    if not any(server.streams >= streams for server in found):
        raise UsageError(
            f"Nothing holds {streams} conversations of {length} tokens on {cards} of {card.name}; give more --cards, "
            "or fewer or shorter conversations."
        )


def _show_servers(
    found: Sequence[Server], card: Card, cards: int, price: float | None, streams: int, length: int
) -> None:
    title = f"{streams} conversations of {length} tokens on {cards} of {card.name} ({card.memory / _GIB:.1f} GiB)"
    columns = ("weights", "cards each", "GiB of weights", "hold", "first token", "tokens/s each", "for 1 M tokens")
    rows = []
    for server in found:
        speed, cost = server.tokens_per_second, "?"
        if speed and price is not None:
            cost = f"{cards * price / (speed * min(streams, server.streams) * 3600) * 1e6:,.2f}"
        told = (f"{server.first_token:.2f} s", f"{speed:,.0f}") if speed and server.first_token else ("?", "?")
        name = "16 bits" if server.quantization == "none" else server.quantization
        holds = f"{server.streams}" if server.streams else "does not fit"
        rows.append((name, server.tensor_parallel, _gib(server.weights), holds, *told, cost))
    print_table(title, columns, rows)


def _gib(size: float) -> str:
    return f"{size / _GIB:.1f}"
