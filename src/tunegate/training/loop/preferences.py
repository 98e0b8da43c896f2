"""Learning from pairs: the loss of DPO, which widens the gap between a chosen answer and a rejected one.

How far the gap has widened is counted from a reference: the model as training began. With an adapter that is the same
network with the adapter switched off, so it takes no memory; where the weights themselves are trained a frozen copy is
kept, under ZeRO-3 in parts, as they are. Nothing of it is state: a resumed run has the same reference.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import deepspeed
import torch
from peft import PeftModel
from torch.nn.functional import logsigmoid
from transformers import TrainingArguments

from tunegate.models.network import load_network
from tunegate.training.config import load_deepspeed, stage_of
from tunegate.training.data.tokenize import IGNORED
from tunegate.training.loop.loss import TrainedPositions
from tunegate.training.loop.methods import dtype_of
from tunegate.training.run.plan import Plan

REWARDS = ("rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins")
"""What is logged, by the names that TRL has for them: means over pairs."""


def preference_loss(policy: torch.Tensor, reference: torch.Tensor, beta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of each pair, and what its answers are rewarded with, [2, pairs].

    policy, reference: log-probabilities of the chosen and the rejected answers, [2, pairs].
    Rafailov et al. 2023, "Direct Preference Optimization", equations 7 and 5.
    """
    rewards = beta * (policy - reference)
    return -logsigmoid(rewards[0] - rewards[1]), rewards.detach()


class PreferenceLoss:
    """The mean over pairs; a batch has its chosen answers in the first half of its rows, and the rejected in the other.

    ftx: the weight of the chosen answers' own cross-entropy, a mean over each answer's tokens, as in LLaMA-Factory.
    """

    def __init__(self, model: Any, frozen: Any, beta: float, ftx: float = 0.0) -> None:
        self._trained = TrainedPositions(model)
        self._network = model
        self._frozen = frozen
        self._frozen_trained = self._trained if frozen is None else TrainedPositions(getattr(frozen, "module", frozen))
        self._beta = beta
        self._ftx = ftx
        self._reference: torch.Tensor | None = None
        self._seen: list[torch.Tensor] = []  # sums of REWARDS, and the number of pairs

    def begin(self, model: Any, inputs: dict[str, Any]) -> None:
        self._reference = self._log_probabilities_of_reference(model, inputs)
        self._trained.expect(inputs["labels"])

    def items(self, labels: torch.Tensor) -> torch.Tensor:
        return _is_pair(labels).sum()

    def loss(self, outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int) -> torch.Tensor:
        losses, sums = self._losses(outputs, labels)
        self._seen.append(torch.cat([sums, _is_pair(labels).sum()[None]]))
        return losses.sum() / num_items_in_batch

    def measured(self, outputs: Any, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        losses, sums = self._losses(outputs, labels)
        return {"loss": losses.sum(), **dict(zip(REWARDS, sums, strict=True))}

    def logs(self) -> dict[str, float]:
        total = torch.stack(self._seen).sum(dim=0)
        torch.distributed.all_reduce(total)
        self._seen.clear()
        return {name: float(value / total[-1]) for name, value in zip(REWARDS, total, strict=False)}

    def _losses(self, outputs: Any, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss of each pair, 0 of what fills a batch up, and the sums of REWARDS."""
        assert self._reference is not None
        policy = _halves(self._trained.log_probabilities(outputs, labels))
        losses, rewards = preference_loss(policy, self._reference, self._beta)
        if self._ftx:
            chosen = labels[: len(labels) // 2, 1:]
            losses = losses - self._ftx * policy[0] / (chosen != IGNORED).sum(dim=1).clamp(min=1)
        is_pair = _is_pair(labels)
        margins = rewards[0] - rewards[1]
        shown = torch.stack([rewards[0], rewards[1], (margins > 0).float(), margins])
        return losses * is_pair, (shown * is_pair).sum(dim=1)

    @torch.no_grad()
    def _log_probabilities_of_reference(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        labels = inputs["labels"]
        plain = {name: value for name, value in inputs.items() if name != "labels"}
        self._frozen_trained.expect(labels)
        if self._frozen is not None:
            outputs = self._frozen(**plain)
        else:
            was_training = self._network.training
            self._network.eval()  # without dropout
            with self._network.disable_adapter():
                outputs = model(**plain)
            self._network.train(was_training)
        return _halves(self._frozen_trained.log_probabilities(outputs, labels))


def frozen_reference(model: Any, plan: Plan, arguments: TrainingArguments) -> Any:
    """A copy of the base that is not trained; None where `model` has an adapter, which can be switched off."""
    if isinstance(model, PeftModel):
        return None
    frozen = load_network(Path(plan.base_folder), dtype_of(arguments)).requires_grad_(False)
    if stage_of(load_deepspeed(plan.config)) < 3:
        return frozen.to(arguments.device)
    zero = {"stage": 3, "stage3_param_persistence_threshold": 0}
    return _engine(frozen, arguments, zero)


def _engine(frozen: Any, arguments: TrainingArguments, zero: dict[str, Any]) -> Any:
    """What puts a layer's parts together for as long as it is computed."""
    config = {
        "train_micro_batch_size_per_gpu": arguments.per_device_train_batch_size,
        "zero_optimization": zero,
        "bf16": {"enabled": arguments.bf16},
        "fp16": {"enabled": arguments.fp16},
    }
    engine, *_ = deepspeed.initialize(model=frozen, config=config)
    engine.eval()
    return engine


def _halves(rows: torch.Tensor) -> torch.Tensor:
    return rows.view(2, -1)


def _is_pair(labels: torch.Tensor) -> torch.Tensor:
    """Whether something is trained in it: [pairs]."""
    found: torch.Tensor = (labels[: len(labels) // 2] != IGNORED).any(dim=1)
    return found
