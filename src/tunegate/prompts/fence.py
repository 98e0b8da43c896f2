"""Fences around data that no data can end, and the control tokens of chat templates made harmless."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence

# What begins and ends turns, tools and thoughts in the chat templates of today's models: ChatML, Llama, DeepSeek
# (full-width bars), Mistral, Gemma, and the sentencepiece models' own.
_CONTROL = re.compile(
    r"[<＜][|｜][^\s|｜<>＜＞]{1,64}[|｜][>＞]"
    r"|</?s>|<</?SYS>>|\[/?INST\]|<(?:start|end)_of_turn>|<(?:bos|eos|pad|unk)>"
    r"|</?(?:tool_call|tool_response|think)>"
    r"|\[/?(?:TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|AVAILABLE_TOOLS|SYSTEM_PROMPT|ARGS|CALL_ID|gMASK|[SU]?BOS|EOS)\]"
    r"|<(?:sop|eop|reserved_\d+|seed:\w+)>",
    re.IGNORECASE,
)
# Letters that nobody sees and models read: a copy of ASCII for tags, of which only flags of regions make use.
_UNSEEN = re.compile("[\U000e0000-\U000e007f]")
_NONCE = re.compile(r"[0-9a-z]{4,32}")
_MARK = re.compile(r"([\"'#`~=*-])\1{2}")


def fence(text: str, nonce: str, mark: str = "") -> str:
    """`text` between two lines that do not occur in it, and so can't be ended from within.

    mark: three equal characters such as ``'''`` or ###, of which as many are taken as it needs; without one the lines
    are tags, `<data-NONCE>`, and a nonce that occurs in the text is replaced by one that it leads to.
    Raises ValueError for a mark that is none.
    """
    if mark:
        if not _MARK.fullmatch(mark):
            raise ValueError(f"{mark!r} is no mark of a fence; write three of one of \" ' # ` ~ = * -")
        longest = max((len(run) for run in re.findall(rf"{re.escape(mark[0])}+", text)), default=0)
        line = mark[0] * max(3, longest + 1)
        return f"{line}\n{text}\n{line}"
    assert _NONCE.fullmatch(nonce), "a nonce is 4 to 32 lower-case letters and digits"
    flat = "".join(unicodedata.normalize("NFKC", text).casefold().split())
    while nonce in flat:
        nonce = hashlib.sha256(nonce.encode()).hexdigest()[:8]
    return f"<data-{nonce}>\n{text}\n</data-{nonce}>"


def break_up(text: str, more: Sequence[str] = ()) -> str:
    """`text` with a space after the first character of each control token, which is then ordinary text to a model.

    Letters that nobody sees are taken out. more: the special tokens of the model's own tokenizer.
    """
    broken = _UNSEEN.sub("", text)
    while _CONTROL.search(broken):  # one may lie within another: <|[INST]|>
        broken = _CONTROL.sub(lambda token: _broken(token[0]), broken)
    for token in sorted(more, key=len, reverse=True):
        broken = broken.replace(token, _broken(token))
    return broken


def find_control_token(text: str) -> re.Match[str] | None:
    """The first control token in `text`."""
    return _CONTROL.search(text)


def _broken(token: str) -> str:
    return f"{token[0]} {token[1:]}"
