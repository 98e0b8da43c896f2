"""A model folder, loaded to be measured: greedy answers to dialogues, and logits of the next token.

The only module of evaluation that imports torch; it knows nothing of suites, scores or the store.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from transformers import AutoTokenizer, GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from tunegate.api.errors import EvaluationError, ModelError
from tunegate.models import check_folder
from tunegate.models.network import first_line, load_network
from tunegate.models.prompt_tuning import has_prefix, leading_tokens, prompt_length

Done = Callable[[int], None]  # how many more questions are answered
END_OF_TURN = "<|im_end|>"


class Model:
    """One loaded version. Greedy throughout, whatever generation defaults the folder holds."""

    def __init__(self, folder: Path, *, dtype: torch.dtype | None = None) -> None:
        """Load from a folder with config.json, weights, tokenizer and chat template.

        Raises ModelError when the folder lacks one of them.
        """
        transformers_logging.disable_progress_bar()
        check_folder(folder)
        self._folder = folder
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._tokenizer = _load_tokenizer(folder)
        self._network = load_network(folder, dtype or _fast_dtype(self._device))
        if hasattr(self._network.config, "quantization_config"):
            with torch.inference_mode():
                self._network(input_ids=torch.zeros(1, 1, dtype=torch.long))  # unpacks the weights
        self._network = self._network.to(self._device)
        self._prefixed = self._under_prefix() if has_prefix(folder) else None
        self._prompt = self._encode(leading_tokens(folder), special=False)
        self._stops = self._stop_ids()
        # generate() fills what is not said to it from here, such as a repetition penalty
        self._network.generation_config = GenerationConfig()
        self._context = int(getattr(self._network.config, "max_position_embeddings", 0)) or None
        if self._context and self._prefixed:
            self._context -= prompt_length(folder)

    @torch.inference_mode()
    def answer(
        self, dialogues: Sequence[list[dict[str, str]]], max_tokens: int, batch_size: int, done: Done
    ) -> list[str | None]:
        """The greedy answer to each dialogue, without special tokens; None where the logits were not finite.

        Raises EvaluationError for a dialogue that leaves no room for `max_tokens`, ModelError for one that the chat
        template refuses.
        """
        prompts = [self._encode(self._render(dialogue), special=False) for dialogue in dialogues]
        self._refuse_too_long(prompts, max_tokens)
        answers: list[str | None] = [None] * len(prompts)
        for batch in _batches([len(prompt) for prompt in prompts], batch_size):
            for index, answer in zip(batch, self._generate([prompts[i] for i in batch], max_tokens), strict=True):
                answers[index] = answer
            done(len(batch))
        return answers

    @torch.inference_mode()
    def next_logits(
        self, texts: Sequence[str], choices: Sequence[str], batch_size: int, done: Done
    ) -> list[tuple[float, ...]]:
        """For each text the logits of `choices`, single tokens, as what comes next.

        What all texts begin with is computed once. Raises EvaluationError when a choice is not a single token or a
        text is longer than the model's context.
        """
        ids = self._single_tokens(choices)
        prompts = [self._prompt + self._encode(text, special=True) for text in texts]
        self._refuse_too_long(prompts, 1)
        shared = _shared_length(prompts)
        start = self._start(prompts[0][:shared])
        logits: list[tuple[float, ...]] = [()] * len(prompts)
        for batch in _batches([len(prompt) for prompt in prompts], batch_size):
            rows = self._last_logits(start, [prompts[i][shared:] for i in batch], ids)
            for index, row in zip(batch, rows, strict=True):
                logits[index] = tuple(row)
            done(len(batch))
        return logits

    def _generate(self, prompts: Sequence[list[int]], max_tokens: int) -> list[str | None]:
        """Left padding, so that every answer begins right after its question."""
        width = max(len(prompt) for prompt in prompts)
        pad = self._stops[0]
        finite = _FiniteLogits(len(prompts), pad)
        output = (self._prefixed or self._network).generate(
            input_ids=self._tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts]),
            attention_mask=self._tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]),
            logits_processor=LogitsProcessorList([finite]),
            generation_config=GenerationConfig(
                do_sample=False,
                max_new_tokens=max_tokens,
                eos_token_id=self._stops,
                pad_token_id=pad,
                use_cache=True,  # a trainer may have left it off in the folder
            ),
        )
        answers = [self._decode(row) for row in output[:, width:].tolist()]
        return [None if failed else text for text, failed in zip(answers, finite.failed, strict=True)]

    def _under_prefix(self) -> Any:
        from tunegate.models.adapters import under_prefix  # peft, which no other model needs

        return under_prefix(self._network, self._folder).to(self._device)

    def _start(self, ids: list[int]) -> Any:
        """The key-value cache after `ids`, for one row; None where there is nothing before what follows."""
        cache = self._prefixed.get_prompt(batch_size=1) if self._prefixed else None
        if not ids:
            return cache
        return self._network.base_model(
            input_ids=self._tensor([ids]), past_key_values=cache, use_cache=True
        ).past_key_values

    def _last_logits(self, start: Any, suffixes: Sequence[list[int]], ids: list[int]) -> list[list[float]]:
        """Right padding: what comes after a text's last token can't change what that token sees.

        The head is applied in float32 to the wanted tokens only: bfloat16 logits of near-equal choices tie, and a tie
        always goes to A.
        """
        width = max(len(suffix) for suffix in suffixes)
        cache = None
        if start is not None:
            cache = copy.deepcopy(start)
            cache.batch_repeat_interleave(len(suffixes))
        padded = self._tensor([suffix + [self._stops[0]] * (width - len(suffix)) for suffix in suffixes])
        hidden = self._network.base_model(input_ids=padded, past_key_values=cache).last_hidden_state
        last = hidden[range(len(suffixes)), [len(suffix) - 1 for suffix in suffixes]].float()
        head = self._network.get_output_embeddings()
        logits = last @ head.weight[ids].float().T
        if head.bias is not None:
            logits = logits + head.bias[ids].float()
        rows: list[list[float]] = logits.tolist()
        return rows

    def _render(self, dialogue: list[dict[str, str]]) -> str:
        try:
            return str(self._tokenizer.apply_chat_template(dialogue, tokenize=False, add_generation_prompt=True))
        except TemplateError as error:
            raise ModelError(f"The chat template in {self._folder} refuses a dialogue: {error}.") from None

    def _encode(self, text: str, *, special: bool) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=special)["input_ids"]
        return ids

    def _decode(self, ids: list[int]) -> str:
        stop = next((place for place, token in enumerate(ids) if token in self._stops), len(ids))
        return str(self._tokenizer.decode(ids[:stop], skip_special_tokens=True)).strip()

    def _tensor(self, rows: list[list[int]]) -> torch.Tensor:
        return torch.tensor(rows, dtype=torch.long, device=self._device)

    def _single_tokens(self, choices: Sequence[str]) -> list[int]:
        encoded = {choice: self._encode(choice, special=False) for choice in choices}
        for choice, ids in encoded.items():
            if len(ids) != 1:
                raise EvaluationError(
                    f"The tokenizer in {self._folder} makes {len(ids)} tokens of {choice!r}, so choices can't be "
                    "compared by one next token; measure this model on business suites only."
                )
        return [ids[0] for ids in encoded.values()]

    def _stop_ids(self) -> list[int]:
        """The ids that end an answer: the model's, the tokenizer's, and the end of a ChatML turn where there is one."""
        configured = self._network.generation_config.eos_token_id
        ids = configured if isinstance(configured, list) else [configured]
        end_of_turn = self._encode(END_OF_TURN, special=False)
        ids = [self._tokenizer.eos_token_id, *ids, *(end_of_turn if len(end_of_turn) == 1 else ())]
        stops = list(dict.fromkeys(token for token in ids if token is not None))
        if not stops:
            raise ModelError(f"The tokenizer in {self._folder} has no end-of-sequence token; set eos_token in it.")
        return stops

    def _refuse_too_long(self, prompts: Sequence[list[int]], room: int) -> None:
        longest = max(len(prompt) for prompt in prompts) + room
        if self._context is not None and longest > self._context:
            raise EvaluationError(
                f"A question needs {longest} tokens with its answer and the model in {self._folder} takes "
                f"{self._context}; lower max_tokens or shots in suite.yaml."
            )


class _FiniteLogits(LogitsProcessor):  # type: ignore[misc]
    """Remembers the rows whose logits were not finite, and ends them: argmax would make a token of NaN."""

    def __init__(self, rows: int, stop: int) -> None:
        self.failed = [False] * rows
        self._stop = stop

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        # the maximum is finite unless there is a NaN or +inf, or nothing but -inf; -inf alone may be a masked token
        bad = ~torch.isfinite(scores.max(dim=-1).values)
        if bad.any():
            self.failed = [before or now for before, now in zip(self.failed, bad.tolist(), strict=True)]
            scores = scores.clone()
            scores[bad] = -torch.inf
            scores[bad, self._stop] = 0
        return scores


def _load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{folder} has no usable tokenizer ({first_line(error)}); save one beside the weights."
        ) from None


def _fast_dtype(device: str) -> torch.dtype:
    """bfloat16 where the hardware multiplies it; elsewhere it is emulated and slower than float32."""
    fast = device == "cuda" or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


def _batches(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Indices in batches of similar length, the longest first: what doesn't fit in memory fails at once."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    return (order[start : start + size] for start in range(0, len(order), size))


def _shared_length(prompts: Sequence[list[int]]) -> int:
    """How many tokens all prompts begin with; at least one token of each is left."""
    first, last = min(prompts), max(prompts)
    shortest = min(len(prompt) for prompt in prompts)
    return next((i for i in range(shortest - 1) if first[i] != last[i]), shortest - 1)
