"""From a dialogue to token ids and labels: what the model reads, and what it is trained to say.

Every assistant turn is trained, with the token that closes it, and nothing else. The text is rendered by the chat
template that is saved beside the weights, so serving reads exactly what training read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tunegate.models.templates import TURN_END
from tunegate.training.datasets import Message, Rejected, Row

IGNORED = -100


@dataclass(frozen=True)
class Example:
    """Token ids of a dialogue up to its last closing token; labels equal them where trained, else IGNORED."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True)
class Examples:
    """`shortened` counts the dialogues that lost turns to the limit."""

    examples: tuple[Example, ...]
    rejected: tuple[Rejected, ...]
    shortened: int

    @property
    def tokens(self) -> int:
        return sum(len(example.input_ids) for example in self.examples)


def encode_rows(tokenizer: Any, rows: Iterable[Row], limit: int) -> Examples:
    """Encode every row; one whose first answer ends beyond `limit` tokens is rejected."""
    examples: list[Example] = []
    rejected: list[Rejected] = []
    shortened = 0
    for row in rows:
        turns = encode_turns(tokenizer, row.messages)
        kept = _within(turns, limit)
        if not kept:
            reason = f"its first answer ends after {len(turns[0].input_ids)} tokens, beyond --cutoff_len {limit}"
            rejected.append(Rejected(file=row.file, line=row.line, reason=reason))
            continue
        shortened += len(kept) < len(turns)
        examples.append(_joined(kept))
    return Examples(tuple(examples), tuple(rejected), shortened)


def encode_turns(tokenizer: Any, messages: Sequence[Message]) -> list[Example]:
    """One example for each assistant turn: what stands between the previous answer and this one, and this one."""
    turns = []
    done = ""
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt = tokenizer.apply_chat_template(messages[:index], add_generation_prompt=True, tokenize=False)
        answer = message["content"] + TURN_END
        # Two pieces, because a served prompt ends here, too: no token may span prompt and answer.
        source = _ids(tokenizer, prompt.removeprefix(done))
        target = _ids(tokenizer, answer)
        turns.append(Example((*source, *target), (*[IGNORED] * len(source), *target)))
        done = prompt + answer
    return turns


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _within(turns: Sequence[Example], limit: int) -> Sequence[Example]:
    """As many turns from the beginning as fit."""
    used = 0
    for count, turn in enumerate(turns):
        used += len(turn.input_ids)
        if used > limit:
            return turns[:count]
    return turns


def _joined(turns: Sequence[Example]) -> Example:
    return Example(
        tuple(token for turn in turns for token in turn.input_ids),
        tuple(label for turn in turns for label in turn.labels),
    )
