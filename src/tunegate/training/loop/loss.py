"""The loss of a causal language model, with the head computed only where a token is trained.

The head is the heaviest matrix of a small model with a large vocabulary, and most positions are prompts: their
predictions are never looked at. The value is the plain loss: the sum over trained tokens of all ranks, by their number.
"""

from __future__ import annotations

from typing import Any

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

    def __call__(self, head: nn.Module, arguments: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        """Called by torch before the head: what it is to compute with."""
        (hidden,) = arguments  # [rows, soft prompt and positions, width]
        assert self._kept is not None
        return (hidden[:, -self._kept.shape[1] :][self._kept],)
