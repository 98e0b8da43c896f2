"""What training makes smaller: the loss of given answers, with the head computed only where a token is trained.

The head is the heaviest matrix of a small model with a large vocabulary, and most positions are prompts: their
predictions are never looked at. The value is the plain loss: the sum over trained tokens of all ranks, by their number.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from tunegate.training.data.tokenize import IGNORED


class TrainedPositions:
    """Stands before a model's head and lets through the hidden states that predict a trained token.

    Call `expect` with a batch's labels, run the model without labels, then call `loss` with its output. States before
    those of the labels belong to a soft prompt at the input.
    """

    def __init__(self, model: Any) -> None:
        head = model.get_output_embeddings()
        assert isinstance(head, nn.Module)
        self._kept: torch.Tensor | None = None
        head.register_forward_pre_hook(self)

    def expect(self, labels: torch.Tensor) -> None:
        # The state at a position predicts the token after it.
        following = torch.full_like(labels, IGNORED)
        following[:, :-1] = labels[:, 1:]
        self._kept = following != IGNORED

    def loss(self, outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int) -> torch.Tensor:
        """Cross-entropy of logits [trained positions, vocabulary] by the number of trained tokens given."""
        assert self._kept is not None
        targets = labels[:, 1:][self._kept[:, :-1]]
        return cross_entropy(outputs.logits.float(), targets, reduction="sum") / num_items_in_batch

    def log_probabilities(self, outputs: Any, labels: torch.Tensor) -> torch.Tensor:
        """Of each row: the log-probability of its trained tokens together, [rows]."""
        assert self._kept is not None
        kept = self._kept[:, :-1]
        each = -cross_entropy(outputs.logits.float(), labels[:, 1:][kept], reduction="none")
        # No sum by index, whose order is another each time on a GPU.
        return torch.zeros(kept.shape, device=each.device).masked_scatter(kept, each).sum(dim=1)

    def __call__(self, head: nn.Module, arguments: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        """Called by torch before the head: what it is to compute with."""
        (hidden,) = arguments  # [rows, soft prompt and positions, width]
        assert self._kept is not None
        return (hidden[:, -self._kept.shape[1] :][self._kept],)


class Objective(Protocol):
    """What a stage of training makes smaller, as the trainer asks for it with each batch."""

    def begin(self, model: Any, inputs: dict[str, Any]) -> None:
        """Before `model` reads `inputs`."""
        ...

    def items(self, labels: torch.Tensor) -> torch.Tensor:
        """How many of a batch's things the loss is a mean over."""
        ...

    def loss(self, outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int) -> torch.Tensor:
        """The sum of their losses, by the number given: that of all ranks' batches of a step."""
        ...

    def measured(self, outputs: Any, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Sums over a batch that was held out, the "loss" first."""
        ...

    def logs(self) -> dict[str, float]:
        """What there is to be logged beside the loss since the last call. Called in every rank at once."""
        ...


class AnswerLoss:
    """Cross-entropy, a mean over all trained tokens."""

    def __init__(self, model: Any) -> None:
        self._trained = TrainedPositions(model)
        self.loss = self._trained.loss

    def begin(self, model: Any, inputs: dict[str, Any]) -> None:
        self._trained.expect(inputs["labels"])

    def items(self, labels: torch.Tensor) -> torch.Tensor:
        return (labels[:, 1:] != IGNORED).sum()

    def measured(self, outputs: Any, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": self._trained.loss(outputs, labels, 1)}

    def logs(self) -> dict[str, float]:
        return {}
