"""What a run takes of each card's memory, before one is asked for.

Weights, gradients and the optimizer's numbers are arithmetic (Rajbhandari et al. 2020, "ZeRO", section 3). What a step
keeps for its backward pass is not guessed: the base's own code runs once on shapes alone, forward and backward, and
what is alive at its peak is counted. No weight is read, and no number computed.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AttentionInterface, AutoModelForCausalLM, PretrainedConfig

from tunegate.training.config import TrainConfig
from tunegate.training.loop.methods import add_method, count_parameters
from tunegate.training.loop.mfu import Work, work_of

_BY_SHAPE = "by_shape"
_MASTER_BYTES = 4  # DeepSpeed's own copy of a trained weight, in float32
# Bytes that an optimizer keeps of each trained weight: Adam's two moments in float32, unless its name says otherwise.
_MOMENTS = (("sgd", 0), ("adafactor", 0), ("lion_8bit", 1), ("8bit", 2), ("4bit", 1), ("lion", 4), ("rmsprop", 4))
_LIVE_PARAMETERS = 1_000_000_000  # DeepSpeed's stage3_max_live_parameters
_BUCKET = 500_000_000  # DeepSpeed's reduce_bucket_size


@dataclass(frozen=True)
class Traced:
    """A model as a method trains it, and one step of a batch.

    parameters, trained: how many. work: what a token is multiplied by.
    kept: bytes alive at the peak of a step besides weights and their gradients, by whether layers are computed again
    backwards; only of the ways that were asked for.
    """

    parameters: int
    trained: int
    work: Work
    kept: Mapping[bool, int]


@dataclass(frozen=True)
class Zero:
    """What a DeepSpeed file says of memory. Buckets and live weights are in elements."""

    stage: int = 0
    reduce_bucket: int = _BUCKET
    live: int = _LIVE_PARAMETERS
    offloads_optimizer: bool = False
    offloads_weights: bool = False

    @classmethod
    def of(cls, deepspeed: dict[str, Any]) -> Zero:
        zero = deepspeed.get("zero_optimization", {})
        offloaded = {name: zero.get(name, {}).get("device", "none") != "none" for name in _OFFLOADS}
        return cls(
            zero.get("stage", 0),
            _number(zero.get("reduce_bucket_size"), _BUCKET),
            _number(zero.get("stage3_max_live_parameters"), _LIVE_PARAMETERS),
            offloads_optimizer=offloaded["offload_optimizer"],
            offloads_weights=offloaded["offload_param"],
        )


_OFFLOADS = ("offload_optimizer", "offload_param")


@dataclass(frozen=True)
class Memory:
    """Bytes on each card, by what they are for, and in its host's memory."""

    weights: float
    gradients: float
    optimizer: float
    buckets: float
    step: float
    host: float

    @property
    def card(self) -> float:
        return self.weights + self.gradients + self.optimizer + self.buckets + self.step


def trace(
    config: TrainConfig, shape: PretrainedConfig, *, on_cpu: bool = False, recomputes: Sequence[bool] = (False, True)
) -> Traced:
    """The model of `shape` trained as `config` says, as if every row were --cutoff_len long and each token trained.

    In half precision unless `config` says otherwise, or `on_cpu`. recomputes: the ways to trace it; each takes a step
    of the base's own Python, seconds of a deep one. Raises ModelError when the method lacks something.
    """
    dtype = torch.float32 if on_cpu or (config.bf16 == "false" and not config.fp16) else torch.bfloat16
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(shape, dtype=dtype, attn_implementation=_BY_SHAPE)
        model = add_method(model, config).to(dtype).train()  # as DeepSpeed casts what a method adds
    work, (trained, parameters) = work_of(model), count_parameters(model)
    rows = config.per_device_train_batch_size * (2 if config.stage == "dpo" else 1)
    kept: dict[bool, int] = {}
    for again in sorted(recomputes):
        if again and config.finetuning_type != "p_tuning_v2":  # its prompts are a cache: no layer is computed again
            model.activation_checkpointing_enable()
        kept[again] = _peak(model, rows, config.cutoff_len)
    return Traced(parameters, trained, work, kept)


def memory_of(traced: Traced, zero: Zero, cards: int, config: TrainConfig, *, recomputes: bool) -> Memory:
    """What each of `cards` needs, all of which train one model."""
    size = 4 if config.bf16 == "false" and not config.fp16 else 2
    frozen = (
        2 if config.stage == "dpo" and config.finetuning_type in ("full", "freeze") else 1
    )  # the reference beside it
    weights = size * traced.parameters * frozen / (cards if zero.stage == 3 else 1)
    gradients = size * traced.trained / (cards if zero.stage >= 2 else 1)
    own = traced.trained / (cards if zero.stage else 1)  # of the trained weights, those this card steps
    optimizer = (_MASTER_BYTES + _moments(config.optim)) * own
    buckets = size * min(zero.reduce_bucket, traced.trained) if zero.stage else 0
    if zero.stage == 3:
        buckets += size * min(zero.live, traced.parameters)
    step = max(traced.kept[recomputes], 4 * own)  # its gradients in float32, when it steps
    host = (optimizer if zero.offloads_optimizer else 0) + (weights if zero.offloads_weights else 0)
    return Memory(
        0 if zero.offloads_weights else weights,
        gradients,
        0 if zero.offloads_optimizer else optimizer,
        buckets,
        step,
        host,
    )


def _moments(optimizer: str) -> int:
    return next((size for name, size in _MOMENTS if name in optimizer), 8)


def _number(given: object, default: int) -> int:
    return int(given) if isinstance(given, int | float) else default  # "auto", too


def _peak(model: Any, rows: int, length: int) -> int:
    """Bytes alive at the peak of a step, besides weights and their gradients."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(_forget)
    tokens = torch.zeros(rows, length, dtype=torch.long, device="meta")
    with _Alive(model) as alive:
        logits = model(input_ids=tokens, use_cache=False).logits[:, -length:].float()  # without those of a soft prompt
        loss = cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="sum")
        del logits
        torch.autograd.backward(loss)
    return int(alive.peak)


def _forget(parameter: torch.Tensor) -> None:
    parameter.grad = None


class _Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of what is made beside a model's weights, for as long as somebody holds it."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak: int = 0
        self._now = 0
        self._seen = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}

    def __torch_dispatch__(self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        name, size = storage._cdata, storage.nbytes()
        if name in self._seen:
            return
        self._seen.add(name)
        self._now += size
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._end, name, size)

    def _end(self, name: int, size: int) -> None:
        self._seen.discard(name)
        self._now -= size


class _Attention(torch.autograd.Function):
    """Keeps what a fused kernel keeps: queries, keys, values, answers and a number for each position and head."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        rows, heads, positions, _ = query.shape
        answers = query.new_empty(rows, positions, heads, value.shape[-1])
        ctx.save_for_backward(query, key, value, answers, query.new_empty(query.shape[:3], dtype=torch.float32))
        return answers

    @staticmethod
    def backward(ctx: Any, *_: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3])


def _attend_by_shape(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any
) -> tuple[torch.Tensor, None]:
    return _Attention.apply(query, key, value), None  # type: ignore[no-untyped-call]


AttentionInterface.register(_BY_SHAPE, _attend_by_shape)
