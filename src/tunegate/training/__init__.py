"""Fine-tuning: from a base model and dialogues to checkpoints in the store.

Importing this package imports no torch: the work happens in processes of its own, started by `train`. What it offers is
imported when it is asked for, so that the command line can tell of settings without waiting for the store's client.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunegate.training.arguments import TrainConfig
    from tunegate.training.launch import train
    from tunegate.training.log import Progress

__all__ = ["Progress", "TrainConfig", "train"]
_MODULES = {"Progress": "log", "TrainConfig": "arguments", "train": "launch"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
