"""The words of a text that can be looked up: for Chinese, Japanese and Korean without a dictionary."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003134f"
_RUN = re.compile(rf"[{CJK}]+|[^\W_{CJK}]+(?:[-._/][^\W_{CJK}]+)*")
_WIDE = re.compile(f"[{CJK}\u3000-\u303f\uff00-\uffef]")
_JOINT = re.compile(r"[-_/]")
_DIGITS = re.compile(r"\d+(?:\.\d+)?")
_LONG_NUMBER = 4  # digits; shorter ones are prices and sizes
# What most English questions hold and what few passages are about; BM25 knows by itself what is frequent in a passage.
_STOP_WORDS = (
    "a an and are as at be been but by can could did do does for from had has have he her his how i if in into is it "
    "its me my no not of on or our s she should so t that the their them then there these they this to us was we were "
    "what when where which who will with would you your"
)
_STOPS = frozenset(_STOP_WORDS.split())


def words(text: str) -> list[str]:
    """The words of a text, in order: characters and pairs of characters of Chinese, words of other scripts, ids both
    whole and in parts."""
    found: list[str] = []
    for run in _runs(text):
        parts = re.split(r"[-._/]", run)
        if re.match(f"[{CJK}]", run):
            found += [*run, *(run[i : i + 2] for i in range(len(run) - 1))]
        elif len(parts) > 1 and any(map(str.isdigit, run)):
            found += [_JOINT.sub("", run), *parts]  # KT-100 is also written KT100
        else:
            found += parts
    return [word for word in found if word not in _STOPS]


def literal_ids(text: str) -> frozenset[str]:
    """The words that stand for one thing, such as KT-100 or 10086: with letters and digits, or a long number."""
    wholes = {_JOINT.sub("", run) for run in _runs(text) if any(map(str.isdigit, run))}
    return frozenset(whole for whole in wholes if len(whole) >= _LONG_NUMBER or not _DIGITS.fullmatch(whole))


def size(text: str) -> int:
    """About the tokens of a text: one for a Chinese character or four others."""
    wide = len(_WIDE.findall(text))
    return wide + (len(text) - wide + 3) // 4


def clipped(text: str, most: int) -> str:
    """The text, or as much of its beginning as has at most `most` of `size`."""
    if size(text) <= most:
        return text
    low, high = most, len(text)  # `most` characters always fit
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size(text[:middle]) <= most else (low, middle)
    return text[:low]


def is_chinese(text: str) -> bool:
    return re.search(f"[{CJK}]", text) is not None


def _runs(text: str) -> Iterator[str]:
    return (match[0] for match in _RUN.finditer(unicodedata.normalize("NFKC", text).casefold()))
