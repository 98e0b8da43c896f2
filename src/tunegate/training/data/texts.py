"""The turns of a dialogue that is one text, by the marks that people put before them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import cast

from tunegate.training.data.dialogues import Message, Role
from tunegate.training.data.readers import Reason, RecordError

_CHATML = re.compile(r"<\|im_start\|>(system|user|assistant)\n(.*?)(?:<\|im_end\|>|\Z)", re.DOTALL)
_LLAMA = re.compile(r"\[INST\](?:\s*<<SYS>>(.*?)<</SYS>>)?(.*?)\[/INST\](.*?)(?=</s>|(?:<s>)?\s*\[INST\]|$)", re.DOTALL)
_HASHES = re.compile(r"###\s*(Human|User|Instruction|Input|Assistant|Response)\s*:")
_ANSWERS = ("Assistant", "Response")


def has_marks(text: str) -> bool:
    return any(marks.search(text) for marks in (_CHATML, _LLAMA, _HASHES))


def turns_of_text(text: str) -> Iterator[Message]:
    """The turns by the marks of ChatML, of Llama 2 (`[INST]`), or of `### Human:` and `### Instruction:`.

    Raises RecordError for a text without any of them, of which it can't be known what is to be answered.
    """
    if _CHATML.search(text):
        _refuse_rest(_CHATML.sub("", text))
        for role, said in _CHATML.findall(text):
            yield Message(cast(Role, role), said)
    elif _LLAMA.search(text):
        _refuse_rest(re.sub("</?s>", "", _LLAMA.sub("", text)))
        for system, asked, answered in _LLAMA.findall(text):
            if system.strip():
                yield Message("system", system.strip())
            yield from (Message("user", asked.strip()), Message("assistant", answered.strip()))
    else:
        yield from _between_hashes(text)


def _refuse_rest(rest: str) -> None:
    if rest.strip():
        raise RecordError(Reason.BAD_MESSAGE, f"something stands outside of the marked turns ({rest.strip()[:40]!r})")


def _between_hashes(text: str) -> Iterator[Message]:
    before, *parts = _HASHES.split(text)
    if not parts:
        raise RecordError(Reason.BAD_MESSAGE, f"the text has no marks of turns, as '### Human:' ({text[:40]!r})")
    if before.strip():
        yield Message("system", before.strip())
    asked: list[str] = []
    for mark, said in zip(parts[::2], parts[1::2], strict=True):
        if mark not in _ANSWERS:
            asked.append(said.strip())
            continue
        yield from (Message("user", "\n".join(asked)), Message("assistant", said.strip()))
        asked = []
    if asked:
        yield Message("user", "\n".join(asked))
