"""From a dialogue to token ids and labels: what the model reads, and what it is trained to say.

Every assistant turn is trained, with the token that closes it, and nothing else. The text is rendered by the chat
template that is saved beside the weights, so serving reads exactly what training read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tunegate.api.errors import ModelError
from tunegate.models.templates import TURN_END, TURN_START, load_template
from tunegate.training.config import TrainConfig
from tunegate.training.data.dialogues import Dialogue, Message
from tunegate.training.data.readers import Reason, RecordError

IGNORED = -100
Ids = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Example:
    """Token ids of a dialogue up to its last closing token; labels equal them where trained, else IGNORED."""

    input_ids: Sequence[int] | Ids
    labels: Sequence[int] | Ids


@dataclass(frozen=True)
class Limits:
    """Most tokens of a dialogue and what happens to a longer one; or of a question and an answer, by the rule of 2023.

    keep_head: turns are left out from the end, and a first turn that is longer is cut inside; keep_last_turns: from
    the beginning, the system text stays; drop: the dialogue is.
    """

    cutoff_len: int
    truncation: str = "keep_head"
    source: int | None = None
    target: int | None = None

    @property
    def longest(self) -> int:
        """Most tokens of an example."""
        if self.source is None or self.target is None:
            return self.cutoff_len
        return self.source + self.target + 1  # the last closing token stands outside both


@dataclass(frozen=True)
class Encoded:
    """A dialogue as it is trained, what the limits cut from it, and which keys of it the chat template left out."""

    example: Example
    cut_tokens: int = 0
    cut_turns: int = 0
    unrendered: tuple[str, ...] = ()


@dataclass(frozen=True)
class Turn:
    """What stands between the previous answer and this one, and this one with the token that closes it."""

    source: list[int]
    answer: list[int]
    is_trained: bool = True

    def __len__(self) -> int:
        return len(self.source) + len(self.answer)


def limits_of(config: TrainConfig) -> Limits:
    return Limits(config.cutoff_len, config.truncation, config.max_source_length, config.max_target_length)


def load_tokenizer(folder: Path, template: str) -> Any:
    """The tokenizer of a folder with our chat template. Raises ModelError when it can't be used."""
    from transformers import AutoTokenizer  # brings torch along, and is only needed for what was not tokenized before

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"The tokenizer in {folder} can't be read: {reason}; save it there once more.") from error
    for token in (TURN_START, TURN_END):
        if tokenizer.convert_tokens_to_ids(token) in (None, tokenizer.unk_token_id):
            raise ModelError(
                f"The tokenizer in {folder} has no {token}, which the template {template} needs; use another base."
            )
    tokenizer.chat_template = load_template(template)
    # Some are published with limits of their own, which only the Python wrapper would undo for each call.
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer


def encode(
    tokenizer: Any, dialogues: Sequence[Dialogue | RecordError], limits: Limits
) -> Iterator[Encoded | RecordError]:
    """Encode dialogues, a batch of them much faster than each alone; a RecordError says why one can't be used.

    What is one already stays one, so that outcomes are in step with the records they come from.
    """
    dialogues = [_without_calls(dialogue) for dialogue in dialogues]
    usable = [dialogue for dialogue in dialogues if not isinstance(dialogue, RecordError)]
    turns = iter(_turns_of(tokenizer, [dialogue.messages for dialogue in usable]) if usable else ())
    for dialogue in dialogues:
        if isinstance(dialogue, RecordError):
            yield dialogue
            continue
        try:
            encoded = _cut(tokenizer, dialogue.messages, next(turns), limits)
            is_trained = (np.asarray(encoded.example.labels) != IGNORED).any()
            nothing = RecordError(Reason.NOTHING_TRAINED, "no answer of it is to be trained")
            yield replace(encoded, unrendered=_unrendered(dialogue)) if is_trained else nothing
        except RecordError as error:
            yield error


def _without_calls(dialogue: Dialogue | RecordError) -> Dialogue | RecordError:
    """The dialogue, unless it holds what our template has no place for."""
    if isinstance(dialogue, RecordError):
        return dialogue
    if any(message.tool_calls or message.role == "tool" for message in dialogue.messages):
        return RecordError(Reason.TOOL_TURN, "an answer calls tools, which the chat template has no place for")
    return dialogue


def _unrendered(dialogue: Dialogue) -> tuple[str, ...]:
    """Keys of what our template leaves out."""
    is_thought = any(message.reasoning for message in dialogue.messages)
    left_out = {"messages[].reasoning_content": is_thought, "tools": bool(dialogue.tools)}
    return tuple(key for key, is_there in left_out.items() if is_there)


def _turns_of(tokenizer: Any, dialogues: Sequence[Sequence[Message]]) -> list[list[Turn]]:
    """The turns of each dialogue, one for each answer."""
    asked = [
        [message.for_template() for message in messages[:end]] for messages in dialogues for end in _answers(messages)
    ]
    prompts = iter(tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False))
    pieces: list[str] = []
    for messages in dialogues:
        rendered = ""
        for end in _answers(messages):
            prompt, answer = next(prompts), messages[end].content + TURN_END
            assert prompt.startswith(rendered), "the template changes what it rendered before"
            # Two pieces, because a served prompt ends here, too: no token may span prompt and answer.
            pieces += (prompt[len(rendered) :], answer)
            rendered = prompt + answer
    # The tokenizer's own core, on all CPUs: its Python wrapper takes as long again.
    ids = iter([piece.ids for piece in tokenizer.backend_tokenizer.encode_batch_fast(pieces, add_special_tokens=False)])
    return [[Turn(next(ids), next(ids), messages[end].trained) for end in _answers(messages)] for messages in dialogues]


def _answers(messages: Sequence[Message]) -> list[int]:
    return [index for index, message in enumerate(messages) if message.role == "assistant"]


def _cut(tokenizer: Any, messages: Sequence[Message], turns: Sequence[Turn], limits: Limits) -> Encoded:
    if limits.source is not None and limits.target is not None:
        return _by_the_rule_of_2023(turns, limits.source, limits.target)
    whole = sum(map(len, turns))
    limit = limits.cutoff_len
    if whole <= limit:
        return Encoded(_joined(turns))
    if limits.truncation == "drop":
        raise RecordError(Reason.TOO_LONG, f"it is too long: it has {whole} tokens, beyond --cutoff_len {limit}")
    if limits.truncation == "keep_last_turns":
        kept = _last_turns(tokenizer, messages, turns, limit)
    else:
        ends = np.cumsum([len(turn) for turn in turns])
        if ends[0] > limit:
            kept = [_cut_inside(turns[0], limit)]
            return Encoded(_joined(kept), whole - limit, len(turns) - 1)
        kept = turns[: int(np.searchsorted(ends, limit, side="right"))]
    return Encoded(_joined(kept), whole - sum(map(len, kept)), len(turns) - len(kept))


def _cut_inside(turn: Turn, limit: int) -> Turn:
    """The heads of question and answer, by LLaMA-Factory's rule: a short one stays whole, else both in proportion."""
    source, answer = len(turn.source), len(turn.answer)
    if answer * 2 < limit:
        most = limit
    elif source * 2 < limit:
        most = limit - source
    else:
        most = int(limit * answer / (source + answer))
    kept = min(most, answer)
    return Turn(turn.source[: limit - kept], turn.answer[:kept], turn.is_trained)


def _last_turns(tokenizer: Any, messages: Sequence[Message], turns: Sequence[Turn], limit: int) -> Sequence[Turn]:
    """As many turns as fit, to the last one; the dialogue is rendered anew, as if it had begun there."""
    system = [message for message in messages[:1] if message.role == "system"]
    dialogue = messages[len(system) :]
    for first in range(1, len(turns)):
        if sum(map(len, turns[first:])) > limit:
            continue  # it can't fit: the system text comes on top
        (kept,) = _turns_of(tokenizer, [[*system, *dialogue[2 * first :]]])
        if sum(map(len, kept)) <= limit:
            return kept
    (alone,) = _turns_of(tokenizer, [[*system, *dialogue[-2:]]])
    raise RecordError(
        Reason.TOO_LONG,
        f"its last answer is too long: with its question it has {len(alone[0])} tokens, beyond --cutoff_len {limit}",
    )


def _by_the_rule_of_2023(turns: Sequence[Turn], most_source: int, most_target: int) -> Encoded:
    """As LLaMA-Efficient-Tuning 0.1.8 cut: each question and answer at its end, then the newest turns.

    The token that closes an answer began the next question then, where it counted and was trained all the same; only
    the last one stood outside the limits.
    """
    ids: list[int] = []
    labels: list[int] = []
    kept = 0
    for turn in turns:
        closing = turn.answer[-1]
        source = ([closing, *turn.source] if kept else turn.source)[:most_source]
        target = turn.answer[:-1][:most_target]
        if len(ids) + len(source) + len(target) > most_source + most_target:
            break
        before = kept and turns[kept - 1].is_trained
        labels += [closing if before and index == 0 else IGNORED for index in range(len(source))]
        labels += target if turn.is_trained else [IGNORED] * len(target)
        ids += source + target
        kept += 1
    example = Example(
        _array([*ids, closing]), _array([*labels, closing if turns[max(kept - 1, 0)].is_trained else IGNORED])
    )
    return Encoded(example, sum(map(len, turns)) - len(example.input_ids), len(turns) - kept)


def _joined(turns: Sequence[Turn]) -> Example:
    ids = _array([*chain.from_iterable((*turn.source, *turn.answer) for turn in turns)])
    labels = [*chain.from_iterable(_labels(turn) for turn in turns)]
    return Example(ids, _array(labels))


def _labels(turn: Turn) -> list[int]:
    return [IGNORED] * len(turn.source) + (turn.answer if turn.is_trained else [IGNORED] * len(turn.answer))


def _array(tokens: list[int]) -> Ids:
    return np.array(tokens, dtype=np.int32)
