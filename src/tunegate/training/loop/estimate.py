"""Whether a run fits on cards and how fast it is there, as it is asked for and by other settings: arithmetic alone."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import msgspec
import torch
from transformers import PretrainedConfig

from tunegate.api.errors import TrainingError
from tunegate.models.cards import Card
from tunegate.models.network import first_line, read_config
from tunegate.training.config import TrainConfig, load_deepspeed
from tunegate.training.data.examples import open_training_data
from tunegate.training.loop.memory import Memory, Traced, Zero, memory_of, trace
from tunegate.training.loop.mfu import Reading, flops_per_token
from tunegate.training.loop.trainer_arguments import computes_in_bfloat16, recomputes_layers
from tunegate.training.run.plan import Plan

_LOG = logging.getLogger(__name__)

_OWN = 1.5 * 2**30  # of each card: CUDA's context and kernels, NCCL's buffers
_USABLE = 0.95  # of the rest: what the allocator can't put together is lost


@dataclass(frozen=True)
class Setting:
    """What decides over a run's memory, and changes nothing that it computes."""

    zero: Zero
    recomputes: bool

    def __str__(self) -> str:
        offloaded = {"optimizer": self.zero.offloads_optimizer, "weights": self.zero.offloads_weights}
        parts = [f"ZeRO-{self.zero.stage}"]
        if names := [name for name, is_offloaded in offloaded.items() if is_offloaded]:
            parts.append(f"{' and '.join(names)} in the host's memory")
        return ", ".join([*parts, *(["layers recomputed"] if self.recomputes else [])])


@dataclass(frozen=True)
class Estimate:
    """rows: how many fit on a card at a time. tokens_per_second: of all cards, None where no card's speed is known."""

    setting: Setting
    memory: Memory
    fits: bool
    rows: int
    tokens_per_second: float | None

    @classmethod
    def of(cls, setting: Setting, traced: Traced, card: Card, cards: int, config: TrainConfig, mfu: float) -> Self:
        memory = memory_of(traced, setting.zero, cards, config, recomputes=setting.recomputes)
        each = traced.kept[setting.recomputes] / config.per_device_train_batch_size
        fits, left = memory.card <= usable(card), usable(card) - (memory.card - memory.step)
        speed = None
        if card.flops:
            work, reading = traced.work, Reading(context=config.cutoff_len, trained=1)
            again = 2 * work.body + 2 * work.attention * reading.context if setting.recomputes else 0
            speed = cards * card.flops * mfu / (flops_per_token(work, reading) + again)
        return cls(setting, memory, fits, max(int(left / each), 0) if fits else 0, speed)


def usable(card: Card) -> float:
    """Bytes of a card that a run may take."""
    return (card.memory - _OWN) * _USABLE


def estimates(
    config: TrainConfig, shape: PretrainedConfig, card: Card, cards: int, mfu: float = 0.35
) -> tuple[Traced, list[Estimate]]:
    """The run on so many cards: first as `config` asks for it, then with what could be asked for instead, the fastest
    first. Raises ModelError as `trace` does."""
    traced = trace(config, shape)
    zero = Zero.of(load_deepspeed(config))
    asked = Setting(zero, recomputes_layers(config, on_cpu=False))
    stages = [
        replace(zero, stage=stage, offloads_optimizer=offloads, offloads_weights=False)
        for stage, offloads in ((2, False), (3, False), (3, True))
    ]
    others = [Setting(stage, recomputes) for stage in stages for recomputes in (False, True)]
    settings = [asked, *(other for other in others if other != asked)]
    return traced, [Estimate.of(setting, traced, card, cards, config, mfu) for setting in settings]


def planned_memory(plan: Plan, processes: int) -> int | None:
    """Bytes that each process of a run on this machine takes at its peak, as `tunegate plan` reckons, for its longest
    row; None where the base can't be run on shapes. Uses up no random number.

    To be asked before DeepSpeed is set up, which would take the model of shapes for one to cut.
    """
    config, on_cpu = plan.config, not torch.accelerator.is_available()
    is_half = config.fp16 or computes_in_bfloat16(config.bf16)
    lengths = open_training_data(config, [Path(folder) for folder in plan.tokens]).train.lengths
    longest = config.cutoff_len if config.packing else min(config.cutoff_len, int(max(lengths)))
    config = msgspec.structs.replace(config, bf16="true" if is_half else "false", cutoff_len=longest)
    recomputes = recomputes_layers(config, on_cpu=on_cpu)
    try:
        with torch.random.fork_rng(devices=[]):
            traced = trace(config, read_config(Path(plan.base_folder)), recomputes=(recomputes,))
    except Exception as error:  # whatever a base's own code can't do on shapes: a figure for a page ends no run
        _LOG.warning("the run's memory is not known in advance", extra={"reason": first_line(error)})
        return None
    return round(memory_of(traced, Zero.of(load_deepspeed(config)), processes, config, recomputes=recomputes).card)


def check_cards(found: Sequence[Estimate], card: Card) -> None:
    """Raises TrainingError, with what does fit, where the first of these estimates doesn't."""
    asked, chosen = found[0], next((estimate for estimate in found if estimate.fits), None)
    if asked.fits:
        return
    said = f"It does not fit: each card needs {_gib(asked.memory.card)} GiB, and {card.name} leaves "
    smaller = "a smaller --per_device_train_batch_size or --cutoff_len, or --finetuning_type lora"
    remedy = f"{chosen.setting} does" if chosen else f"give more cards, {smaller}"
    raise TrainingError(f"{said}{_gib(usable(card))}; {remedy}.")


def check_host(config: TrainConfig, shape: PretrainedConfig, processes: int, pods: int, limit: int) -> None:
    """Whether a pod without cards that may take `limit` bytes holds its `processes`, as many in each of `pods`.

    Half precision is counted unless `config` says otherwise, and no library: what is refused is sure not to fit.
    Raises TrainingError then, ModelError as `trace` does.
    """
    recomputes, zero = recomputes_layers(config, on_cpu=True), Zero.of(load_deepspeed(config))
    traced = trace(config, shape, recomputes=(recomputes,))
    memory = memory_of(traced, zero, processes * pods, config, recomputes=recomputes)
    needed = processes * (memory.card + memory.host)
    if needed > limit:
        counted = f"{processes} process{'es' if processes > 1 else ''}"
        raise TrainingError(
            f"It does not fit: a pod's {counted} need {_gib(needed)} GiB, and its memory ends at {_gib(limit)}; "
            "give it more, or a smaller --per_device_train_batch_size or --cutoff_len, or --finetuning_type lora."
        )


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f}"
