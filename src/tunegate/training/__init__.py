"""Fine-tuning: from a base model and dialogues to checkpoints in the store.

Importing this package imports no torch: the work happens in processes of its own, started by `train`.
"""

from tunegate.training.arguments import TrainConfig
from tunegate.training.launch import train
from tunegate.training.log import Progress

__all__ = ["Progress", "TrainConfig", "train"]
