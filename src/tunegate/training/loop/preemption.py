"""The callback that ends training at one step in all ranks, when one of them or the run's folder says it is to stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tunegate.training.run.layout import STOP
from tunegate.training.run.preemption import StopRequest


class PreemptionCallback(TrainerCallback):  # type: ignore[misc]
    """Sets control for a checkpoint and the end of training; add it before callbacks that read control.

    Signals reach ranks at different moments, and one that stopped alone would leave the others waiting forever.
    """

    def __init__(self, stop: StopRequest, output_dir: Path, *, looks: bool) -> None:
        """looks: this rank looks into the folder, which one of all that have it does."""
        self._stop = stop
        self._looks = looks
        self._path = output_dir / STOP
        # gloo, because the CPU needs the answer: a GPU would have to finish its work first.
        self._group = torch.distributed.new_group(backend="gloo")
        self.agreed = False

    @property
    def reason(self) -> str:
        """Why the run is to stop, where that is for its numbers; empty where a person or a node asked."""
        return self._path.read_text() if self._path.exists() else ""

    def keep(self, reason: str) -> None:
        """Tell the process that started this node's ranks, which finds it in the folder, that they were to stop."""
        if not self._path.exists():
            self._path.write_text(reason)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        asked = self._stop.requested or (self._looks and self._path.exists())
        answer = torch.tensor(int(asked))
        torch.distributed.all_reduce(answer, torch.distributed.ReduceOp.MAX, group=self._group)
        if answer.item() and state.global_step < state.max_steps:
            self.agreed = control.should_save = control.should_training_stop = True

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        # Trainer takes an interrupted epoch for one that ended, and would save this step a second time.
        if self.agreed:
            control.should_save = control.should_evaluate = False
