"""A model folder, loaded into this process to be measured: torch and transformers."""

from __future__ import annotations

import copy
import math
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList
from transformers.utils import logging as transformers_logging

from tunegate.api.errors import EvaluationError, ModelError
from tunegate.api.evaluation import Probe
from tunegate.api.versions import ModelVersion
from tunegate.evaluation.models import Dialogue, Tokens
from tunegate.evaluation.sheets import Sheet
from tunegate.models import check_folder, materialize
from tunegate.models.network import has_bfloat16, load_network, load_tokenizer
from tunegate.models.prompt_tuning import has_prefix, leading_tokens, prompt_length
from tunegate.models.templates import TURN_END
from tunegate.store import Store

BATCH_SIZE = 32  # questions at once: more is faster until the memory is full
# What every version is told from others by: prose, numbers and code, and what chat looks like to it, where adapters
# differ most. Changed, they must not be compared with what was kept of these: the tokens are kept, too.
_PROBES = (
    "The kettle costs 49 euros, and it is delivered within two days.",
    "水壶的价格是四十九元，两天之内送到。",
    "def total(items):\n    return sum(item.price for item in items)\n",
)
_PROBED_TALK = (
    {"role": "user", "content": "你好，这件衣服还有货吗？ Do you have it in blue?"},
    {"role": "assistant", "content": "您好，有货，今天下单明天发出。 Yes, in all sizes."},
)
_PROBE_TOKENS = 48  # of each: together they take an engine one step


class LocalModel:
    """One loaded version. Greedy throughout, whatever generation defaults the folder holds."""

    def __init__(self, folder: Path, *, dtype: torch.dtype | None = None, batch_size: int = BATCH_SIZE) -> None:
        """Load from a folder with config.json, weights, tokenizer and chat template.

        Raises ModelError when the folder lacks one of them.
        """
        transformers_logging.disable_progress_bar()
        check_folder(folder)
        self._folder, self._batch_size = folder, batch_size
        self.tokens = Tokens()
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._tokenizer = load_tokenizer(folder)
        self._network = load_network(folder, dtype or (torch.bfloat16 if has_bfloat16() else torch.float32))
        if hasattr(self._network.config, "quantization_config"):
            with torch.inference_mode():
                self._network(input_ids=torch.zeros(1, 1, dtype=torch.long))  # unpacks the weights
        self._network = self._network.to(self._device)
        self._prefixed: Any = None
        if has_prefix(folder):
            from tunegate.models.adapters import under_prefix  # peft, which no other model needs

            self._prefixed = under_prefix(self._network, folder).to(self._device)
        self._prompt = self._encode(leading_tokens(folder), special=False)
        self._stops = self._stop_ids()
        # generate() fills what is not said to it from here, such as a repetition penalty
        self._network.generation_config = GenerationConfig()
        self._context = int(getattr(self._network.config, "max_position_embeddings", 0)) or None
        if self._context and self._prefixed:
            self._context -= prompt_length(folder)

    @property
    def settings(self) -> str:
        """The type of the numbers, where they are computed, and how many questions at once."""
        return f"{self._network.dtype}".removeprefix("torch.") + f"-{self._device}-{self._batch_size}"

    @cached_property
    @torch.inference_mode()
    def probes(self) -> tuple[Probe, ...]:
        """As `Model.probes`: none under a soft prompt, which a look at single tokens would leave out, and none of
        numbers that are not finite."""
        if self._prompt or self._prefixed:
            return ()
        with suppress(TemplateError):  # some want other turns; what it refuses, nobody asks it
            talk = str(self._tokenizer.apply_chat_template(list(_PROBED_TALK), tokenize=False))
            return self._probed([*_PROBES, talk])
        return self._probed(_PROBES)

    def _probed(self, texts: Sequence[str]) -> tuple[Probe, ...]:
        probes = []
        for text in texts:
            tokens = self._encode(text, special=False)[: min(_PROBE_TOKENS, self._context or _PROBE_TOKENS)]
            logits = self._network(input_ids=self._tensor([tokens])).logits[0, :-1].float()
            found = logits.log_softmax(-1)[range(len(tokens) - 1), tokens[1:]].tolist()
            probes.append(Probe(tokens=tuple(tokens), logprobs=tuple(round(each, 6) for each in found)))
        finite = all(math.isfinite(each) for probe in probes for each in probe.logprobs)
        return tuple(probe for probe in probes if probe.logprobs) if finite else ()

    def for_harness(self) -> tuple[Any, Any]:
        """Network and tokenizer, for lm-evaluation-harness's own code.

        Raises EvaluationError for a soft prompt, which that would leave out.
        """
        if self._prompt or self._prefixed:
            remedy = "measure this version on other suites"
            raise EvaluationError(f"lm-evaluation-harness would leave out the soft prompt in {self._folder}; {remedy}.")
        return self._network, self._tokenizer

    @torch.inference_mode()
    def answer(self, dialogues: Sequence[Dialogue], max_tokens: int, sheet: Sheet) -> None:
        """As `Model.answer`, without special tokens."""
        render = self._tokenizer.apply_chat_template
        try:
            texts = [str(render(dialogue, tokenize=False, add_generation_prompt=True)) for dialogue in dialogues]
        except TemplateError as error:
            raise ModelError(
                f"The chat template in {self._folder} refuses a dialogue: {error}; change one of them."
            ) from None
        self._write([self._encode(text, special=False) for text in texts], max_tokens, sheet)

    @torch.inference_mode()
    def complete(self, texts: Sequence[str], max_tokens: int, sheet: Sheet) -> None:
        """As `Model.complete`, without special tokens."""
        self._write([self._prompt + self._encode(text, special=True) for text in texts], max_tokens, sheet)

    def _write(self, prompts: Sequence[list[int]], max_tokens: int, sheet: Sheet) -> None:
        self._refuse_too_long(prompts, max_tokens)
        for batch in filter(sheet.lacks, _batches([len(prompt) for prompt in prompts], self._batch_size)):
            answers = self._generate([prompts[i] for i in batch], max_tokens)
            sheet.put(dict(zip(batch, answers, strict=True)))

    def choose(self, texts: Sequence[str], letters: Sequence[str], sheet: Sheet) -> None:
        """As `Model.choose`: the letter with the greatest logit, the first of equal ones."""
        for rows in self.next_logits(texts, self.single_tokens(letters), sheet.lacks):
            greatest = {place: letters[max(range(len(letters)), key=row.__getitem__)] for place, row in rows.items()}
            sheet.put({place: greatest[place] if all(map(math.isfinite, row)) else None for place, row in rows.items()})

    def single_tokens(self, choices: Sequence[str]) -> list[int]:
        """The token of each choice. Raises EvaluationError for one that takes several."""
        encoded = {choice: self._encode(choice, special=False) for choice in choices}
        for choice, ids in encoded.items():
            if len(ids) != 1:
                raise EvaluationError(
                    f"The tokenizer in {self._folder} makes {len(ids)} tokens of {choice!r}, so choices can't be "
                    "compared by one next token; measure this model on business suites only."
                )
        return [ids[0] for ids in encoded.values()]

    @torch.inference_mode()
    def next_logits(
        self, texts: Sequence[str], tokens: Sequence[int], wanted: Callable[[Sequence[int]], bool] = bool
    ) -> Iterator[dict[int, list[float]]]:
        """Batch by batch for each text, by its place, the logits of `tokens` as what comes next.

        What all texts begin with is computed once; batches that are not `wanted` are left out. Raises EvaluationError
        when a text is longer than the model's context.
        """
        # 4 bytes a token: as lists of integers, 14,000 questions with their shots took more than the model
        prompts = [array("i", self._prompt + self._encode(text, special=True)) for text in texts]
        self._refuse_too_long(prompts, 1)
        shared = _shared_length(prompts)
        start = self._start(prompts[0][:shared].tolist())
        for batch in filter(wanted, _batches([len(prompt) for prompt in prompts], self._batch_size)):
            suffixes = [prompts[i][shared:].tolist() for i in batch]
            self.tokens.read += sum(len(prompts[i]) for i in batch)
            rows = self._last_logits(start, suffixes, tokens)
            yield dict(zip(batch, rows, strict=True))

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
        written = output[:, width:].tolist()
        self.tokens.read += sum(map(len, prompts))
        self.tokens.written += sum(self._length(row) for row in written)
        answers = [self._decode(row) for row in written]
        return [None if failed else text for text, failed in zip(answers, finite.failed, strict=True)]

    def _start(self, ids: list[int]) -> Any:
        """The key-value cache after `ids`, for one row; None where there is nothing before what follows."""
        cache = self._prefixed.get_prompt(batch_size=1) if self._prefixed else None
        if not ids:
            return cache
        return self._network.base_model(
            input_ids=self._tensor([ids]), past_key_values=cache, use_cache=True
        ).past_key_values

    def _last_logits(self, start: Any, suffixes: Sequence[list[int]], ids: Sequence[int]) -> list[list[float]]:
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

    def _encode(self, text: str, *, special: bool) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=special)["input_ids"]
        return ids

    def _decode(self, ids: list[int]) -> str:
        """The text; of a character that an answer was cut off in there is nothing, as servers have it."""
        text = str(self._tokenizer.decode(ids[: self._length(ids)], skip_special_tokens=True))
        return text.rstrip("\ufffd").strip()

    def _length(self, ids: list[int]) -> int:
        """How many tokens come before the one that ends the answer."""
        return next((place for place, token in enumerate(ids) if token in self._stops), len(ids))

    def _tensor(self, rows: list[list[int]]) -> torch.Tensor:
        return torch.tensor(rows, dtype=torch.long, device=self._device)

    def _stop_ids(self) -> list[int]:
        """The ids that end an answer: the model's, the tokenizer's, and the end of a ChatML turn where there is one."""
        configured = self._network.generation_config.eos_token_id
        ids = configured if isinstance(configured, list) else [configured]
        turn_end = self._encode(TURN_END, special=False)
        ids = [self._tokenizer.eos_token_id, *ids, *(turn_end if len(turn_end) == 1 else ())]
        stops = list(dict.fromkeys(token for token in ids if token is not None))
        if not stops:
            raise ModelError(f"The tokenizer in {self._folder} has no end-of-sequence token; set eos_token in it.")
        return stops

    def _refuse_too_long(self, prompts: Sequence[Sequence[int]], room: int) -> None:
        longest = max(len(prompt) for prompt in prompts) + room
        if self._context is not None and longest > self._context:
            raise EvaluationError(
                f"A question needs {longest} tokens with its answer and the model in {self._folder} takes "
                f"{self._context}; lower max_tokens or shots in suite.yaml."
            )


def load_version(store: Store, version: ModelVersion, report: Callable[[str], None]) -> LocalModel:
    """Fetch and load `version`; `report` gets what is being done. Raises StoreError, DigestError or ModelError."""
    report("fetching the version")
    folder = materialize(store, version, whole=False)
    report("loading the model")
    return LocalModel(folder)


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


def _batches(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Indices in batches of similar length, the longest first: what doesn't fit in memory fails at once."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    return (order[start : start + size] for start in range(0, len(order), size))


def _shared_length(prompts: Sequence[array[int]]) -> int:
    """How many tokens all prompts begin with; at least one token of each is left."""
    first, last = min(prompts), max(prompts)
    shortest = min(len(prompt) for prompt in prompts)
    return next((i for i in range(shortest - 1) if first[i] != last[i]), shortest - 1)
