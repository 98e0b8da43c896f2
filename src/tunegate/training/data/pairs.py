"""From a record to a pair: two dialogues with one prompt, of which people liked the last answer of one better.

In LLaMA-Factory's ranking layouts, TRL's, ms-swift's and that of Anthropic's transcripts. Each side is brought into a
layout without pairs and read as any other dialogue; only its last answer is trained.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from msgspec.structs import replace

from tunegate.training.data.dialogues import Dialogue
from tunegate.training.data.formats import dialogue_of, missing
from tunegate.training.data.layouts import Layout, Tags
from tunegate.training.data.readers import Reason, Record, RecordError
from tunegate.training.data.tokenize import IGNORED, Encoded, Example, Limits, encode, kept_of_answer

_SPEAKER = re.compile(r"\n\n(Human|Assistant): ?")  # of Anthropic's transcripts


@dataclass(frozen=True)
class Pair:
    """Two dialogues that differ in their last answers alone."""

    chosen: Dialogue
    rejected: Dialogue


def pairs_of(records: Iterable[Record], layout: Layout) -> list[Pair | RecordError]:
    """The pair of each record, or why it is none."""
    pairs: list[Pair | RecordError] = []
    for record in records:
        try:
            pairs.append(pair_of(record.value, layout))
        except RecordError as error:
            pairs.append(error)
    return pairs


def pair_of(record: Any, layout: Layout) -> Pair:
    """The pair in a record. Raises RecordError."""
    if isinstance(record, RecordError):
        raise record
    if not isinstance(record, dict):
        raise RecordError(Reason.NOT_AN_OBJECT, "the record is not an object")
    read = _side_of_alpaca if layout.formatting == "alpaca" else _side_of_messages
    chosen, rejected = (
        _only_the_last(read(record, layout, column)) for column in (layout.columns.chosen, layout.columns.rejected)
    )
    if chosen.messages[:-1] != rejected.messages[:-1]:
        raise RecordError(Reason.OTHER_PROMPTS, "its two answers are to different prompts")
    if chosen.messages == rejected.messages:
        raise RecordError(Reason.SAME_ANSWERS, "its two answers are the same, which teaches nothing")
    return Pair(chosen, rejected)


def _side_of_alpaca(record: Mapping[str, Any], layout: Layout, column: str | None) -> Dialogue:
    """With the answer under `column`, or as it is without one."""
    plain = replace(layout.columns, response=column or layout.columns.response, chosen=None, rejected=None)
    return dialogue_of(record, replace(layout, columns=plain))


def _side_of_messages(record: Mapping[str, Any], layout: Layout, column: str | None) -> Dialogue:
    """The prompt and the answer under `column`, which may hold both; the messages are whole without a column."""
    tags, columns = layout.tags, layout.columns
    if column and column not in record:
        raise missing(record, layout, f"it has no {column!r}", column)
    prompt = record.get(columns.messages or "")
    if isinstance(prompt, dict) and "messages" in prompt:  # OpenAI's, where tools stand beside them
        record, prompt = {**record, "tools": prompt.get("tools") or record.get("tools")}, prompt["messages"]
    before = [] if prompt is None else _messages(prompt, tags, tags.user_tag)
    own = _messages(record[column], tags, tags.assistant_tag) if column else []
    is_whole = bool(own) and isinstance(own[0], dict) and own[0].get(tags.role_tag) != tags.assistant_tag
    if column and columns.chosen is None:
        before = before[:-1]  # the last one is the chosen answer
    if not before and not is_whole:
        raise missing(record, layout, f"it has no prompt under {columns.messages!r}", columns.messages)
    plain = replace(columns, messages="messages", response=None, chosen=None, rejected=None)
    made = {**record, "messages": own if is_whole else [*before, *own]}
    return dialogue_of(made, replace(layout, columns=plain))


def _messages(said: Any, tags: Tags, speaker: str) -> list[Any]:
    """A list of messages as it is, one in a list, and a text as its speaker's, or as the transcript that it is."""
    if isinstance(said, list):
        return said
    if isinstance(said, dict):
        return [said]
    _, *turns = _SPEAKER.split(said) if isinstance(said, str) else [""]
    if turns:
        roles = {"Human": tags.user_tag, "Assistant": tags.assistant_tag}
        spoken = zip(turns[::2], turns[1::2], strict=True)
        return [{tags.role_tag: roles[who], tags.content_tag: text} for who, text in spoken]
    return [{tags.role_tag: speaker, tags.content_tag: said}]


def _only_the_last(dialogue: Dialogue) -> Dialogue:
    *before, last = dialogue.messages
    return replace(dialogue, messages=(*(replace(message, trained=False) for message in before), last))


def encode_pairs(
    tokenizer: Any, pairs: Sequence[Pair | RecordError], limits: Limits
) -> Iterator[Encoded | RecordError]:
    """Encode pairs, in step with what they come from; a RecordError says why one can't be used.

    Both sides keep one prompt: what is cut from it is cut in both, by the longer answer.
    """
    usable = [pair for pair in pairs if isinstance(pair, Pair)]
    sides = _encode_sides(tokenizer, usable)
    for pair in pairs:
        if isinstance(pair, RecordError):
            yield pair
            continue
        try:
            yield _cut(tokenizer, pair, next(sides), limits)
        except RecordError as error:
            yield error


Sides = tuple[Encoded | RecordError, Encoded | RecordError]


def _encode_sides(tokenizer: Any, pairs: Sequence[Pair]) -> Iterator[Sides]:
    whole = Limits(sys.maxsize)
    encoded = encode(tokenizer, [side for pair in pairs for side in (pair.chosen, pair.rejected)], whole)
    return zip(encoded, encoded, strict=True)


def _cut(tokenizer: Any, pair: Pair, sides: Sides, limits: Limits) -> Encoded:
    chosen, rejected = _examples(sides)
    whole, cut_turns = _tokens(chosen, rejected), 0
    if limits.source is not None and limits.target is not None:
        chosen, rejected = (_heads(side, limits.source, limits.target + 1) for side in (chosen, rejected))
    elif _longest(chosen, rejected) > limits.cutoff_len:
        if limits.truncation == "keep_last_turns":
            chosen, rejected, cut_turns = _last_turns(tokenizer, pair, limits.cutoff_len)
        elif limits.truncation == "keep_head":
            prompt = _prompt(chosen)
            answer = max(len(side.input_ids) for side in (chosen, rejected)) - prompt
            kept = kept_of_answer(prompt, answer, limits.cutoff_len)
            chosen, rejected = (_heads(side, limits.cutoff_len - kept, kept) for side in (chosen, rejected))
    if (longest := _longest(chosen, rejected)) > limits.longest:
        raise RecordError(
            Reason.TOO_LONG,
            f"it is too long: its longer side has {longest} tokens, beyond --cutoff_len {limits.longest}",
        )
    if np.array_equal(chosen.input_ids, rejected.input_ids):
        raise RecordError(Reason.SAME_ANSWERS, "its two answers are the same up to where they are cut")
    unrendered = {key for side in sides if isinstance(side, Encoded) for key in side.unrendered}
    return Encoded(chosen, whole - _tokens(chosen, rejected), cut_turns, tuple(sorted(unrendered)), rejected)


def _last_turns(tokenizer: Any, pair: Pair, limit: int) -> tuple[Example, Example, int]:
    """As many turns of the prompt as fit, to the last one; how many are left out comes third."""
    messages = pair.chosen.messages
    begin = int(messages[0].role == "system")
    asked = [index for index, message in enumerate(messages) if message.role == "user"]
    for first in asked[1:] or asked:
        sides = (pair.chosen, pair.rejected)
        shorter = Pair(*(replace(side, messages=side.messages[:begin] + side.messages[first:]) for side in sides))
        chosen, rejected = _examples(next(_encode_sides(tokenizer, [shorter])))
        if _longest(chosen, rejected) <= limit:
            break
    return chosen, rejected, sum(message.role == "assistant" for message in messages[begin:first])


def _examples(sides: Sides) -> tuple[Example, Example]:
    for side in sides:
        if isinstance(side, RecordError):
            raise side
    chosen, rejected = (side.example for side in sides if isinstance(side, Encoded))
    return chosen, rejected


def _heads(side: Example, source: int, answer: int) -> Example:
    """At most so many tokens of the prompt and of the answer."""
    prompt = _prompt(side)
    kept = np.r_[: min(prompt, source), prompt : min(prompt + answer, len(side.input_ids))]
    return Example(np.asarray(side.input_ids)[kept], np.asarray(side.labels)[kept])


def _prompt(side: Example) -> int:
    """The number of tokens before the answer."""
    return int(np.argmax(np.asarray(side.labels) != IGNORED))


def _tokens(chosen: Example, rejected: Example) -> int:
    return len(chosen.input_ids) + len(rejected.input_ids)


def _longest(chosen: Example, rejected: Example) -> int:
    return max(len(chosen.input_ids), len(rejected.input_ids))
