"""Ends training at a step that all ranks agree on, when one of them or the run's folder says that it is to stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tunegate.training.run.layout import STOP
from tunegate.training.run.preemption import Stop


class Preemption(TrainerCallback):  # type: ignore[misc]
    """Asks for a checkpoint and for the end of training. Stands before callbacks that look at what is asked for.

    Signals reach ranks at different moments, and one that stopped alone would leave the others waiting for ever.
    """

    def __init__(self, stop: Stop, output_dir: Path) -> None:
        self._stop = stop
        self._wish = output_dir / STOP
        # gloo, because the answer is for the processor: a GPU would have to finish its work first.
        self._group = torch.distributed.new_group(backend="gloo")
        self.agreed = False

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        asked = self._stop.asked or (state.is_world_process_zero and self._wish.exists())
        answer = torch.tensor(int(asked))
        torch.distributed.all_reduce(answer, torch.distributed.ReduceOp.MAX, group=self._group)
        if answer.item() and state.global_step < state.max_steps:
            self.agreed = control.should_save = control.should_training_stop = True

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        # Trainer takes an epoch that was broken off for one that ended, and would save this step a second time.
        if self.agreed:
            control.should_save = control.should_evaluate = False
