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

import msgspec
import numpy as np
import numpy.typing as npt

from tunegate.api.errors import ModelError
from tunegate.models.templates import set_template
from tunegate.training.config import TrainConfig
from tunegate.training.data.dialogues import Dialogue
from tunegate.training.data.readers import Reason, RecordError
from tunegate.training.data.rendering import Rendered, Renderer

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

    keep_head: the turn that does not fit is cut inside, and those after it are left out; keep_last_turns: turns are
    left out from the beginning, the system text stays; drop: the dialogue is.
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
    """A dialogue as it is trained, what the limits cut from it, and which keys of it the chat template left out.

    Of a pair: its chosen side as `example`, and the rejected one.
    """

    example: Example
    cut_tokens: int = 0
    cut_turns: int = 0
    unrendered: tuple[str, ...] = ()
    rejected: Example | None = None


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
    """The tokenizer of a folder with the template called `template`. Raises ModelError when it can't be used."""
    from transformers import AutoTokenizer  # brings torch along, and is only needed for what was not tokenized before

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"The tokenizer in {folder} can't be read: {reason}; save it there once more.") from error
    set_template(tokenizer, template, folder)
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
    renderer = Renderer(tokenizer)
    rendered = [_rendered(renderer, dialogue) for dialogue in dialogues]
    segments = renderer.segments([each for each in rendered if isinstance(each, Rendered)])
    for dialogue, each in zip(dialogues, rendered, strict=True):
        if isinstance(dialogue, RecordError) or isinstance(each, RecordError):
            yield dialogue if isinstance(dialogue, RecordError) else each  # type: ignore[misc]
            continue
        try:
            encoded = _cut(renderer, dialogue, _turns(each, next(segments)), limits)
            is_trained = (np.asarray(encoded.example.labels) != IGNORED).any()
            nothing = RecordError(Reason.NOTHING_TRAINED, "no answer of it is to be trained")
            yield replace(encoded, unrendered=each.unrendered) if is_trained else nothing
        except RecordError as error:
            yield error


def _rendered(renderer: Renderer, dialogue: Dialogue | RecordError) -> Rendered | RecordError:
    try:
        return dialogue if isinstance(dialogue, RecordError) else renderer.render(dialogue)
    except RecordError as error:
        return error


def _turns(rendered: Rendered, segments: Sequence[list[int]]) -> list[Turn]:
    return [
        Turn(source, answer, about.is_trained)
        for source, answer, about in zip(segments[::2], segments[1::2], rendered.answers, strict=True)
    ]


def _cut(renderer: Renderer, dialogue: Dialogue, turns: Sequence[Turn], limits: Limits) -> Encoded:
    if limits.source is not None and limits.target is not None:
        return _by_the_rule_of_2023(turns, limits.source, limits.target)
    whole = sum(map(len, turns))
    limit = limits.cutoff_len
    if whole <= limit:
        return Encoded(_joined(turns))
    if limits.truncation == "drop":
        raise RecordError(Reason.TOO_LONG, f"it is too long: it has {whole} tokens, beyond --cutoff_len {limit}")
    keeps_last = limits.truncation == "keep_last_turns"
    kept = _last_turns(renderer, dialogue, limit) if keeps_last else _head(turns, limit)
    return Encoded(_joined(kept), whole - sum(map(len, kept)), len(turns) - len(kept))


def _head(turns: Sequence[Turn], limit: int) -> list[Turn]:
    """The turns up to the limit; of the one that goes beyond it what LLaMA-Factory leaves, if some answer is left."""
    kept: list[Turn] = []
    for turn in turns:
        room = limit - sum(map(len, kept))
        if len(turn) > room:
            cut = _cut_inside(turn, room)
            return [*kept, cut] if cut.answer or not kept else kept
        kept.append(turn)
    return kept


def _cut_inside(turn: Turn, limit: int) -> Turn:
    """The heads of question and answer."""
    kept = kept_of_answer(len(turn.source), len(turn.answer), limit)
    return Turn(turn.source[: limit - kept], turn.answer[:kept], turn.is_trained)


def kept_of_answer(source: int, answer: int, limit: int) -> int:
    """How many tokens of an answer stay, by LLaMA-Factory's rule: of question and answer a short one stays whole, else
    both are cut in proportion."""
    if answer * 2 < limit:
        most = limit
    elif source * 2 < limit:
        most = limit - source
    else:
        most = int(limit * answer / (source + answer))
    return min(most, answer)


def _last_turns(renderer: Renderer, dialogue: Dialogue, limit: int) -> Sequence[Turn]:
    """What was said since the earliest question from which on it fits, rendered as if the dialogue had begun there."""
    system = tuple(message for message in dialogue.messages[:1] if message.role == "system")
    asked = [index for index, message in enumerate(dialogue.messages) if message.role == "user"]
    for first in asked[1:] or asked:
        rendered = renderer.render(msgspec.structs.replace(dialogue, messages=(*system, *dialogue.messages[first:])))
        kept = _turns(rendered, next(renderer.segments([rendered])))
        if (length := sum(map(len, kept))) <= limit:
            return kept
    raise RecordError(
        Reason.TOO_LONG,
        f"its last answer is too long: with its question it has {length} tokens, beyond --cutoff_len {limit}",
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
