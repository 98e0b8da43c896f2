"""A checkpoint of one number of processes, divided again for another: DeepSpeed's universal format.

ZeRO leaves each process a part of the optimizer, so a checkpoint fits as many processes as wrote it. The universal one
is made for a start, and is gone when all have read it.
"""

from __future__ import annotations

import logging
import os
import shutil
from argparse import Namespace
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from deepspeed.checkpoint import ds_to_universal
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments, set_seed

from tunegate.files import new_folder

_LOG = logging.getLogger(__name__)
_PARTS = "*zero_pp_rank_*_optim_states.pt"


def processes_of(resume: Path) -> int | None:
    """How many processes wrote a checkpoint's state; None where they did not divide it."""
    return len(list((resume / _tag(resume)).glob(_PARTS))) or None


def convert(resume: Path, into: Path) -> None:
    """Write the state in `resume` for any number of processes to the folder `into`, complete or not at all.

    Random numbers stay behind: they were those of as many processes.
    """
    tag = _tag(resume)
    options = {"keep_temp_folder": False, "strict": True, "inject_missing_state": True}
    workers = {"num_extract_workers": 1, "num_merge_workers": 1}  # more are forked, which a process with threads is not
    fields = {"checkpoint": resume.parent.name, "processes": processes_of(resume)}
    _LOG.warning("a checkpoint of another number of processes is converted", extra=fields)
    with new_folder(into) as partial:
        places = {"input_folder": str(resume / tag), "output_folder": str(partial / tag)}
        with open(os.devnull, "w") as nothing, redirect_stdout(nothing), redirect_stderr(nothing):
            ds_to_universal.main(Namespace(**places, **options, **workers))
        for path in resume.iterdir():
            if path.is_file() and not path.name.startswith("rng_state"):
                shutil.copyfile(path, partial / path.name)


def load_universal(arguments: TrainingArguments) -> None:
    """Let DeepSpeed read the checkpoint to come in the universal format."""
    settings = arguments.hf_deepspeed_config.config
    settings["checkpoint"] = {**settings.get("checkpoint", {}), "load_universal": True}


class UniversalCheckpointCallback(TrainerCallback):  # type: ignore[misc]
    """Corrects what DeepSpeed read from a universal checkpoint, and removes that when all have read it.

    It has no random numbers: they start from the seed and the step, so that dropout isn't that of the first steps.
    """

    def __init__(self, folder: Path, *, clears: bool) -> None:
        """clears: this rank removes it, which one of all that have the folder does."""
        self._folder = folder
        self._clears = clears

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any) -> None:
        inner = kw["optimizer"].optimizer.optimizer  # torch's, in DeepSpeed's, in accelerate's
        saved = torch.load(self._folder / _tag(self._folder) / "zero" / "optimizer_state.pt", weights_only=False)
        restore_param_groups(inner, saved["param_groups"])
        torch.distributed.barrier()
        if self._clears:
            shutil.rmtree(self._folder)
        set_seed(args.seed + state.global_step)


def restore_param_groups(optimizer: torch.optim.Optimizer, groups: list[dict[str, Any]]) -> None:
    """Undo what ZeRO-3 of deepspeed 0.19 does: all groups get the first one's settings, and one counter of steps.

    Weights that don't decay would, and a counter that several groups share counts each step several times.
    """
    for state in optimizer.state.values():
        if torch.is_tensor(state.get("step")):
            state["step"] = state["step"].clone()
    for group, right in zip(optimizer.param_groups, groups, strict=True):
        group.update({name: value for name, value in right.items() if name != "params"})


def _tag(resume: Path) -> str:
    return (resume / "latest").read_text().strip()
