"""What a run leaves while it goes on: its log, its complete checkpoints, and word to whoever publishes them."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tunegate.api.errors import TrainingError
from tunegate.training.checkpoints import Publisher, seal
from tunegate.training.log import LOG, Progress, append
from tunegate.training.methods import make_servable
from tunegate.training.plan import Plan

if TYPE_CHECKING:
    from tunegate.training.trainer import Tuner


class Record(TrainerCallback):  # type: ignore[misc]
    """Writes the log, seals each checkpoint when every rank has written it, and hands it to the publisher."""

    def __init__(self, plan: Plan, output_dir: Path, trainer: Tuner, publisher: Publisher | None) -> None:
        self._plan = plan
        self._output_dir = output_dir
        self._trainer = trainer
        self._publisher = publisher
        self._loss: float | None = None
        self._first_step = 0
        self._begun = self._logged = time.monotonic()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._first_step = state.global_step
        self._begun = self._logged = time.monotonic()

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        # accelerate 1.15 does not tell the sampler when a run resumes in the middle of an epoch.
        self._trainer.order.set_epoch(int(state.epoch or 0))

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any], **_: Any
    ) -> None:
        if "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            raise TrainingError(
                f"The loss is {logs['loss']} at step {state.global_step}; "
                "start a new run with a smaller --learning_rate."
            )
        self._loss = logs["loss"]
        if self._trainer.is_world_process_zero():
            append(self._output_dir / LOG, self._progress(args, state, logs))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        torch.distributed.barrier()
        if not self._trainer.is_world_process_zero():
            return
        folder = self._output_dir / f"checkpoint-{state.global_step}"
        make_servable(folder, self._trainer.model, self._plan)
        checkpoint = seal(
            folder, step=state.global_step, total_steps=state.max_steps, epoch=state.epoch or 0.0, loss=self._loss
        )
        if self._publisher:
            self._publisher.submit(checkpoint)

    def _progress(self, args: TrainingArguments, state: TrainerState, logs: dict[str, Any]) -> Progress:
        now = time.monotonic()
        tokens, positions = self._trainer.count()
        elapsed = now - self._begun
        done = state.global_step - self._first_step
        progress = Progress(
            current_steps=state.global_step,
            total_steps=state.max_steps,
            epoch=state.epoch or 0.0,
            loss=logs["loss"],
            learning_rate=logs["learning_rate"],
            tokens_per_second=tokens * args.world_size / (now - self._logged),
            padding=1 - tokens / positions,
            elapsed_seconds=elapsed,
            remaining_seconds=elapsed / done * (state.max_steps - state.global_step),
        )
        self._logged = now
        return progress
