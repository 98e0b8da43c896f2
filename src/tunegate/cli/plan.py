"""`tunegate plan`: what training or serving takes of memory, time and money, before a card is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from tunegate.api.errors import TrainingError, UsageError
from tunegate.cli.options import json_option, print_table

if TYPE_CHECKING:
    from tunegate.models.cards import Card
    from tunegate.serving.engines.memory import Footprint
    from tunegate.training.config import TrainConfig
    from tunegate.training.loop.memory import Memory, Traced, Zero

F = TypeVar("F", bound=Callable[..., Any])

_GIB = 2**30
_OWN = 1.5 * _GIB  # of each card: CUDA's context and kernels, NCCL's buffers
_USABLE = 0.95  # of the rest: what the allocator can't put together is lost
_BYTES = {"none": 2.0, "fp8": 1.0, "int8": 1.0, "int4": 0.52}  # of a quantized weight, with its share of the scales


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
    from tunegate.training.config import load_deepspeed
    from tunegate.training.loop.memory import Zero, trace
    from tunegate.training.loop.trainer_arguments import recomputes_layers

    card, config = read_card(card_name), _config_of(arguments)
    traced = trace(config, _shape(config.model_name_or_path))
    asked = _Setting(Zero.of(load_deepspeed(config)), recomputes_layers(config, on_cpu=False))
    found = [_Outlook.of(setting, traced, card, cards, config, mfu) for setting in (asked, *_others(asked))]
    if as_json:
        click.echo(msgspec.json.encode([asdict(outlook) for outlook in found]))
    else:
        _show_training(found, card, traced)
        _show_hours(found, cards, price, (tokens or 0) * config.num_train_epochs)
    if not found[0].fits:
        raise TrainingError(_remedy(found, card))


@dataclass(frozen=True)
class _Setting:
    zero: Zero
    recomputes: bool

    @property
    def text(self) -> str:
        offloaded = [
            *(["optimizer"] if self.zero.offloads_optimizer else []),
            *(["weights"] if self.zero.offloads_weights else []),
        ]
        parts = [f"ZeRO-{self.zero.stage}", *([f"{' and '.join(offloaded)} in the host's memory"] if offloaded else [])]
        return ", ".join([*parts, *(["layers recomputed"] if self.recomputes else [])])


@dataclass(frozen=True)
class _Outlook:
    """rows: how many fit on a card at a time. tokens_per_second: of all cards, None where no card's speed is known."""

    setting: _Setting
    memory: Memory
    fits: bool
    rows: int
    tokens_per_second: float | None

    @classmethod
    def of(cls, setting: _Setting, traced: Traced, card: Card, cards: int, config: TrainConfig, mfu: float) -> _Outlook:
        from tunegate.training.loop.memory import memory_of
        from tunegate.training.loop.mfu import Reading, flops_per_token

        memory = memory_of(traced, setting.zero, cards, config, recomputes=setting.recomputes)
        each = (traced.recomputed if setting.recomputes else traced.kept) / config.per_device_train_batch_size
        left = _usable(card) - (memory.card - memory.step)
        fits, speed = memory.card <= _usable(card), None
        if card.flops:
            work, reading = traced.work, Reading(context=config.cutoff_len, trained=1)
            again = 2 * work.body + 2 * work.attention * reading.context if setting.recomputes else 0
            speed = cards * card.flops * mfu / (flops_per_token(work, reading) + again)
        return cls(setting, memory, fits, max(int(left / each), 0) if fits else 0, speed)


def _others(asked: _Setting) -> list[_Setting]:
    """What could be asked for instead, the fastest first."""
    zero = asked.zero
    stages = [
        replace(zero, stage=2, offloads_optimizer=False, offloads_weights=False),
        replace(zero, stage=3, offloads_optimizer=False, offloads_weights=False),
        replace(zero, stage=3, offloads_optimizer=True, offloads_weights=False),
    ]
    found = [_Setting(stage, recomputes) for stage in stages for recomputes in (False, True)]
    return [setting for setting in found if setting != asked]


def _usable(card: Card) -> float:
    return (card.memory - _OWN) * _USABLE


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


def _show_training(found: Sequence[_Outlook], card: Card, traced: Traced) -> None:
    asked = found[0].memory
    parts = [(name, _gib(getattr(asked, name))) for name in ("weights", "gradients", "optimizer", "buckets")]
    parts += [("a step", _gib(asked.step)), ("in all", _gib(asked.card)), ("in the host's memory", _gib(asked.host))]
    counted = f"{traced.parameters / 1e9:.3g} G parameters, {traced.trained / 1e9:.3g} G of them trained"
    print_table(counted, ("as asked for", "GiB a card"), parts)
    rows = []
    for outlook in found:
        speed = f"{outlook.tokens_per_second:,.0f}" if outlook.tokens_per_second else "?"
        fitting = outlook.rows if outlook.fits else "does not fit"
        rows.append((outlook.setting.text, _gib(outlook.memory.card), fitting, speed))
    title = f"{card.name} leaves {_gib(_usable(card))} of {_gib(card.memory)} GiB; as asked for, and otherwise"
    print_table(title, ("", "GiB a card", "rows", "tokens/s"), rows)


def _show_hours(found: Sequence[_Outlook], cards: int, price: float | None, tokens: float) -> None:
    chosen = next((outlook for outlook in found if outlook.fits), None)
    if chosen is None or not tokens or not chosen.tokens_per_second:
        return
    hours = tokens / chosen.tokens_per_second / 3600
    cost = f", {hours * cards * price:,.2f} at {price:g} for a card's hour" if price is not None else ""
    click.echo(f"{tokens:,.0f} tokens take {hours:,.1f} hours with {chosen.setting.text}{cost}")


def _remedy(found: Sequence[_Outlook], card: Card) -> str:
    said = f"It does not fit: each card needs {_gib(found[0].memory.card)} GiB, and {card.name} leaves "
    said += f"{_gib(_usable(card))}"
    if better := next((outlook for outlook in found if outlook.fits), None):
        return f"{said}; {better.setting.text} does."
    return (
        f"{said}; give more cards, a smaller --per_device_train_batch_size or --cutoff_len, or --finetuning_type lora."
    )


@command.command(short_help="Of a server.")
@click.argument("model", metavar="FOLDER")
@click.option("--streams", default=16, show_default=True, type=click.IntRange(1), help="Conversations at a time.")
@click.option("--length", default=2048, show_default=True, type=click.IntRange(1), help="Tokens of each, with answer.")
@click.option(
    "--bandwidth-used",
    default=0.6,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True),
    help="Share of a card's memory bandwidth that writing an answer gets.",
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
    bandwidth_used: float,
    as_json: bool,
) -> None:
    """Say how many conversations fit, spread over more cards or with smaller weights, and how fast they are answered.

    FOLDER holds the model's config.json; its weights need not be there. By the arithmetic that `tunegate serve --engine
    vllm` starts with. Exits with 1 where nothing holds as many --streams.
    """
    from tunegate.models.cards import read_card

    card = read_card(card_name)
    found = _servers(model, card, cards, streams, length, mfu, bandwidth_used)
    if as_json:
        click.echo(msgspec.json.encode([asdict(server) for server in found]))
    else:
        _show_servers(found, card, cards, price, streams, length)
    if not any(server.streams >= streams for server in found):
        raise UsageError(
            f"Nothing holds {streams} conversations of {length} tokens on {cards} of {card.name}; give more --cards, "
            "or fewer or shorter conversations."
        )


@dataclass(frozen=True)
class _Server:
    """tensor_parallel: cards of one server. weights: bytes on each. streams: how many conversations fit on all servers.

    first_token: seconds from a prompt of half the length. tokens_per_second: of one of the streams asked for.
    """

    tensor_parallel: int
    quantization: str
    weights: float
    streams: int
    first_token: float | None
    tokens_per_second: float | None


def _servers(
    model: str, card: Card, cards: int, streams: int, length: int, mfu: float, bandwidth_used: float
) -> list[_Server]:
    from tunegate.models.network import network_of_shapes
    from tunegate.serving.engines.memory import Footprint, room_for
    from tunegate.training.loop.mfu import work_of

    _shape(model)
    network = network_of_shapes(Path(model), model)
    work, parameters = work_of(network), sum(weight.numel() for weight in network.parameters())
    found = []
    for quantization, size in _BYTES.items():
        footprint = Footprint.of(Path(model), int(work.body * size + (parameters - work.body) * 2))
        for parallel in range(1, cards + 1):
            if footprint.heads % parallel or cards % parallel:
                continue
            copies = cards // parallel
            fitting = max(room_for(footprint, card.memory, parallel), 0) // length * copies
            pace = None
            if card.flops and card.bandwidth and fitting:
                own = min(-(-streams // copies), fitting // copies)
                speeds = card.flops * mfu * parallel, card.bandwidth * bandwidth_used * parallel
                pace = _pace(footprint, 2.0 * (work.body + work.head), own, length, *speeds)
            found.append(
                _Server(parallel, quantization, footprint.weights / parallel, fitting, *(pace or (None, None)))
            )
    return found


def _pace(
    footprint: Footprint, flops: float, streams: int, length: int, flops_each: float, bytes_each: float
) -> tuple[float, float]:
    """Seconds to the first token, and tokens/s of each stream: all weights and all keys and values are read for one."""
    read = footprint.weights + streams * length / 2 * footprint.token
    return flops * length / 2 / flops_each, 1 / max(read / bytes_each, streams * flops / flops_each)


def _show_servers(
    found: Sequence[_Server], card: Card, cards: int, price: float | None, streams: int, length: int
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
