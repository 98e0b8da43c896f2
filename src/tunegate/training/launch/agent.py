"""torchrun as a program, with ranks that are forked where they compute on CPUs.

What ranks import takes 6 to 10 seconds of a CPU: that way it is imported once for all of them and their restarts. Where
there is an accelerator each is a program of its own, as torchrun has it, because drivers don't outlive a fork.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch.distributed import run as torchrun

from tunegate.garbage import lasting_imports


def main(words: list[str]) -> None:
    """Start ranks by torchrun's options in `words`, whose last one is the file with the plan."""
    *options, plan = words
    if sys.platform == "linux" and not torch.accelerator.is_available():
        with lasting_imports():
            import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401 - DeepSpeed does so when it starts

            import tunegate.training.launch.worker  # noqa: F401
        options += ["--start-method", "fork", "--run-path", str(Path(__file__).with_name("forked.py"))]
    else:
        options += ["-m", "tunegate.training.launch.worker"]
    torchrun.main([*options, plan])


if __name__ == "__main__":
    main(sys.argv[1:])
