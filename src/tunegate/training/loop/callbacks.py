"""The callback that writes what a run leaves: log, metrics, picture, and complete checkpoints for the publisher.

Every rank has one; the first rank's writes. It changes nothing that is computed.
"""

from __future__ import annotations

import math
import resource
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tunegate.api.errors import TrainingError
from tunegate.api.versions import Cost
from tunegate.training.loop.batches import Order
from tunegate.training.loop.folders import Folders
from tunegate.training.loop.methods import count_parameters, make_servable
from tunegate.training.loop.metrics import Metrics
from tunegate.training.loop.mfu import flops_per_token, peak_flops, reading_of, work_of
from tunegate.training.loop.node_local import agree_on_part
from tunegate.training.loop.preferences import REWARDS
from tunegate.training.loop.resume import agree_on_files
from tunegate.training.run.checkpoints import complete_checkpoints, remove_surplus, seal
from tunegate.training.run.layout import LOG, PICTURE
from tunegate.training.run.plan import Plan, identity_of
from tunegate.training.run.progress import Progress, append, clock
from tunegate.training.run.publisher import Helper, Publisher

_SAMPLED_ROWS = 500
_REWARDS = (*REWARDS, "eval_rewards/accuracies")


class CountingTrainer(Protocol):
    """What the callback reads of the trainer beside what transformers hands to callbacks."""

    model: Any
    args: Any
    train_dataset: Any
    order: Order

    def is_world_process_zero(self) -> bool: ...

    def count(self) -> tuple[int, int]:
        """Tokens read, and positions computed for them, in this rank since the last call."""
        ...


@dataclass(frozen=True)
class Outlook:
    """Before the model is there: the bytes that this process is expected to take at its peak, None where nobody knows,
    and those of the machine's memory that it has taken by then."""

    planned_memory: int | None
    resident_before: int


class RunCallback(TrainerCallback):  # type: ignore[misc]
    """Writes the log, seals each checkpoint when every rank has written it, and hands it to the publisher.

    Where nodes have folders of their own, a rank of each seals and hands on its node's part.
    """

    def __init__(
        self,
        plan: Plan,
        output_dir: Path,
        trainer: CountingTrainer,
        publisher: Publisher | None,
        metrics: Metrics,
        report: Callable[[Progress], None],
        outlook: Outlook,
        folders: Folders,
        helper: Helper | None = None,
    ) -> None:
        self._plan = plan
        self._output_dir = output_dir
        self._trainer = trainer
        self._publisher = publisher
        self._metrics = metrics
        self._report = report
        self._outlook = outlook
        self._folders = folders
        self._helper = helper
        self._loss: float | None = None
        self._eval_loss: float | None = None  # of this step
        self._first_step = 0
        self._seconds_before = 0.0
        self._share_of_peak: float | None = None  # that one token a second takes
        self._started = self._logged = time.monotonic()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._first_step = state.global_step
        if self._trainer.is_world_process_zero():
            for checkpoint in complete_checkpoints(self._output_dir):  # what earlier attempts took to come this far
                if checkpoint.step == state.global_step:
                    self._seconds_before = checkpoint.cost.seconds or 0.0
            self._share_of_peak = _share_of_peak(self._trainer)
        self._started = self._logged = time.monotonic()

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        # accelerate 1.15 does not tell the sampler when a run resumes in the middle of an epoch.
        self._trainer.order.set_epoch(int(state.epoch or 0))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        # What was not logged by then would be missing from the first mean after this checkpoint is resumed from.
        control.should_log |= control.should_save

    on_epoch_end = on_step_end

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any], **_: Any
    ) -> None:
        loss = logs.get("loss")
        if loss is not None and not math.isfinite(loss):
            raise TrainingError(
                f"The loss is {loss} at step {state.global_step}; start a new run with a smaller --learning_rate."
            )
        self._loss = self._loss if loss is None else loss
        self._eval_loss = logs.get("eval_loss")
        if self._trainer.is_world_process_zero() and ("loss" in logs or "eval_loss" in logs):
            progress = self._progress(args.world_size, state, logs)
            append(self._output_dir / LOG, progress)
            self._metrics.logged(progress)
            self._report(progress)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        folder = self._output_dir / f"checkpoint-{state.global_step}"
        part, is_first = None, self._trainer.is_world_process_zero()
        if self._folders.is_shared:
            agree_on_files(folder, is_first=is_first)
            if self._helper:
                self._helper.submit(folder)
        if is_first:
            self._complete(folder, state)
        if not self._folders.is_shared:
            part = agree_on_part(folder, self._folders)
        if not self._folders.leads:
            return
        trainable, parameters = count_parameters(self._trainer.model)
        peak_memory = torch.cuda.max_memory_reserved() if torch.cuda.is_available() else resident_peak()
        cost = Cost(
            trainable_parameters=trainable,
            parameters=parameters,
            seconds=round(self._seconds_before + time.monotonic() - self._started, 1),
            peak_memory_bytes=peak_memory,
            eval_loss=self._eval_loss,
        )
        checkpoint = seal(
            folder,
            step=state.global_step,
            total_steps=state.max_steps,
            epoch=state.epoch or 0.0,
            loss=self._loss,
            cost=cost,
            run=identity_of(self._output_dir),
            part=part,
        )
        self._metrics.saved()
        if self._publisher:
            self._publisher.submit(checkpoint)
        else:
            remove_surplus(complete_checkpoints(self._output_dir), self._plan.config.kept)

    def _complete(self, folder: Path, state: TrainerState) -> None:
        """Add what the Trainer does not write."""
        from tunegate.training.loop.plot import draw  # brings matplotlib along, which only the first rank needs

        make_servable(folder, self._trainer.model, self._plan)
        # What is published is the same for the same run, whatever was measured by when.
        draw(state.log_history, folder / PICTURE)
        if self._publisher and self._publisher.points:
            draw(state.log_history, self._output_dir / PICTURE, self._publisher.points)
        else:
            shutil.copyfile(folder / PICTURE, self._output_dir / PICTURE)

    def _progress(self, ranks: int, state: TrainerState, logs: dict[str, Any]) -> Progress:
        now = time.monotonic()
        elapsed, done = now - self._started, state.global_step - self._first_step
        speed: dict[str, Any] = {}
        if logs.get("loss") is not None:
            tokens, positions = self._trainer.count()
            tokens_per_second = tokens / (now - self._logged)  # this rank's
            self._logged = now
            speed = {
                "tokens_per_second": tokens_per_second * ranks,
                "padding": 1 - tokens / positions,
                "mfu": None if self._share_of_peak is None else tokens_per_second * self._share_of_peak,
            }
        return Progress(
            current_steps=state.global_step,
            total_steps=state.max_steps,
            loss=logs.get("loss"),
            eval_loss=logs.get("eval_loss"),
            lr=logs.get("learning_rate"),
            grad_norm=logs.get("grad_norm"),
            epoch=state.epoch or 0.0,
            percentage=round(100 * state.global_step / state.max_steps, 2),
            elapsed_time=clock(elapsed),
            remaining_time=clock(elapsed / done * (state.max_steps - state.global_step)),
            **speed,
            planned_memory_bytes=self._outlook.planned_memory,
            **self._peak_memory(),
            **{name.replace("/", "_"): value for name, value in logs.items() if name in _REWARDS},
        )

    def _peak_memory(self) -> dict[str, Any]:
        if torch.cuda.is_available():
            return {"gpu_memory_bytes": torch.cuda.max_memory_allocated()}
        return {"process_memory_bytes": resident_peak() - self._outlook.resident_before}


def resident_peak() -> int:
    """The most bytes of the machine's memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _share_of_peak(trainer: CountingTrainer) -> float | None:
    examples = trainer.train_dataset
    rows = [examples[index] for index in range(0, len(examples), 1 + len(examples) // _SAMPLED_ROWS)]
    sampled = [example for row in rows for example in (row if isinstance(row, tuple) else (row,))]
    args = trainer.args
    peak = peak_flops(args.device, torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else torch.float32)
    return flops_per_token(work_of(trainer.model), reading_of(sampled)) / peak if peak else None
