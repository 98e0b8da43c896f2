"""How each request of one batch draws its tokens: `transformers serve` gives all of them what the first one asked for.

Its continuous batching takes a logits processor with arguments for each request. Here that is one which draws as the
request of each row asks. Those that always take the likeliest token, and those with a seed, share a batch with others.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.cli.serving.utils import CBGenerateManager
from transformers.generation.continuous_batching.cb_logits_processors import (
    ContinuousBatchingLogitsProcessor,
    ContinuousBatchingLogitsProcessorList,
)


class Drawing:
    """What a generation configuration says of drawing, and its seed if it has one."""

    def __init__(self, config: GenerationConfig) -> None:
        self._is_greedy = not config.do_sample
        self._seed: int | None = getattr(config, "seed", None)
        self._steps = LogitsProcessorList()
        if config.repetition_penalty not in (None, 1.0):
            self._steps.append(RepetitionPenaltyLogitsProcessor(float(config.repetition_penalty)))
        if self._is_greedy:
            return
        if config.temperature not in (None, 1.0):
            self._steps.append(TemperatureLogitsWarper(float(config.temperature)))
        if config.top_k:
            self._steps.append(TopKLogitsWarper(config.top_k))
        if config.top_p not in (None, 1.0):
            self._steps.append(TopPLogitsWarper(float(config.top_p)))
        if config.min_p:
            self._steps.append(MinPLogitsWarper(float(config.min_p)))

    def left(self, scores: torch.Tensor, tokens: list[int]) -> torch.Tensor:
        """Of one row of scores what may be drawn after `tokens`, as a batch of one; all else is minus infinity."""
        row = scores.unsqueeze(0)
        return self._steps(torch.tensor([tokens], device=scores.device), row) if self._steps else row

    def draw(self, scores: torch.Tensor, tokens: list[int]) -> torch.Tensor:
        """The token that follows `tokens`."""
        row = self.left(scores, tokens)
        if self._is_greedy:
            return row.argmax(-1)
        drawn = None
        if self._seed is not None:  # a number for each place of each answer: the rest of the batch changes nothing
            drawn = torch.Generator(scores.device).manual_seed((self._seed * 1_000_003 + len(tokens)) % 2**63)
        return torch.multinomial(row.softmax(-1), 1, generator=drawn)[0]


class _ByRequest(ContinuousBatchingLogitsProcessor):  # type: ignore[misc]
    supported_kwargs = {"drawing": Drawing}
    ignored_kwargs = ()

    def __init__(self) -> None:
        self._rows: list[tuple[Drawing, list[int]]] = []

    def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
        int32_tensor.zero_()

    def prepare_tensor_args(self, requests_with_new_token: list[Any]) -> torch.Tensor:
        """What we need is no tensor, and without CUDA graphs may be kept until the scores come."""
        states = [request.state for request in requests_with_new_token]
        self._rows = [
            (state.logit_processor_kwargs["drawing"], state.initial_tokens + state.generated_tokens) for state in states
        ]
        return torch.zeros(len(states), dtype=torch.int32)

    def __call__(self, scores: torch.Tensor, tensor_arg: torch.Tensor) -> torch.Tensor:
        """Scores of which each row has one token left, which the library then takes as the likeliest.

        A request whose prompt is read in parts has no token yet: for each, one row too many stands at the end.
        """
        left = torch.full_like(scores, -torch.inf)
        for row, (drawing, before), only in zip(scores, self._rows, left, strict=False):
            only[drawing.draw(row, before)] = 0.0
        return left


class DrawingManager(CBGenerateManager):  # type: ignore[misc]
    """Continuous batching in which each request draws as its own configuration says."""

    _cb: Any
    _drawing: Drawing

    def init_cb(self, model: Any, gen_config: GenerationConfig) -> None:
        """Start the batch, without the library's own sampling: the processor has drawn."""
        if self._cb is not None:
            return
        shared = GenerationConfig(do_sample=False, eos_token_id=gen_config.eos_token_id)
        batch = model.init_continuous_batching(generation_config=shared, continuous_batching_config=self._cb_config)
        batch.logit_processor = ContinuousBatchingLogitsProcessorList(LogitsProcessorList([_ByRequest()]))
        batch.logit_processor.tensors_required = 1
        add = batch.add_request
        batch.add_request = lambda *args, **kwargs: add(*args, **kwargs, drawing=self._drawing)
        batch.start()
        self._cb = batch

    def generate_streaming(self, model: Any, processor: Any, inputs: Any, gen_config: Any, **kwargs: Any) -> Any:
        self._prepare(model, gen_config)
        return super().generate_streaming(model, processor, inputs, gen_config, **kwargs)

    async def generate_non_streaming(
        self, model: Any, processor: Any, inputs: Any, gen_config: Any, **kwargs: Any
    ) -> Any:
        self._prepare(model, gen_config)
        return await super().generate_non_streaming(model, processor, inputs, gen_config, **kwargs)

    def _prepare(self, model: Any, gen_config: GenerationConfig) -> None:
        """For `add_request`, which both call before they wait for anything."""
        if gen_config.eos_token_id is None:
            gen_config.eos_token_id = model.generation_config.eos_token_id
        self._drawing = Drawing(gen_config)
