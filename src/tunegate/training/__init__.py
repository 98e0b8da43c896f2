"""Fine-tuning: from a base model and dialogues to checkpoints in the store.

Importing this package imports neither torch nor numpy: the work happens in processes of its own, started by `train`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunegate.training.config import TrainConfig
    from tunegate.training.data.prepare import Preparing
    from tunegate.training.launch.torchrun import train
    from tunegate.training.run.progress import Progress, Uploading

__all__ = ["Preparing", "Progress", "TrainConfig", "Uploading", "train"]

_HOMES = {
    "Preparing": "data.prepare",
    "Progress": "run.progress",
    "TrainConfig": "config",
    "Uploading": "run.progress",
    "train": "launch.torchrun",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
