"""What keeps a text out of a corpus, as a word for it. Pure functions that hold for Chinese.

The usual ones don't: a tokenizer of ROUGE that knows ASCII alone finds two equal Chinese texts 0 alike, and counting
words between spaces drops every Chinese sentence. Character ROUGE-L is what rapidfuzz calls Indel similarity.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import Indel

from tunegate.corpus.plan import Filters
from tunegate.knowledge.words import is_chinese

_NUMBERED = re.compile(r"^\s*(?:\d{1,3}\s*[.、)）:：]|[-*•])\s*(.+?)\s*$")
_SCORE = re.compile(r"(?:分数|score)\s*[:：]?\s*([1-5])(?!\s*[./]?\d)", re.IGNORECASE)
_REFUSALS = re.compile(  # of a model, not of a shop: 抱歉，这款没有货 is an answer
    r"作为(?:一个|一名)?\s*(?:AI|人工智能|语言模型)|(?:抱歉|对不起)[^。！]{0,6}我(?:无法|不能)(?:回答|协助|生成|完成|参与|继续)"
    r"|\bas an? (?:AI|language model)\b|\bI(?:'m| am) (?:sorry|unable)[^.]{0,20} (?:assist|comply|help with)"
    r"|\bI can(?:no|')t (?:assist|comply|fulfill|help with)",
    re.IGNORECASE,
)
_REPEATED = re.compile(r"(.{2,40}?)\1{4,}", re.DOTALL)


def listed(reply: str) -> list[str]:
    """The texts of a numbered list; what stands around them is left out."""
    return [found[1].strip('"“”') for line in reply.splitlines() if (found := _NUMBERED.match(line))]


def score_in(reply: str) -> int | None:
    """The score that a judge gives; None where none can be read, or several that differ."""
    found = {int(score) for score in _SCORE.findall(unicodedata.normalize("NFKC", reply))}
    return found.pop() if len(found) == 1 else None


def fault_of_question(text: str, language: str, filters: Filters) -> str | None:
    """Why a question is not taken; None where it is."""
    plain = normal(text)
    if len(plain) < filters.min_characters:
        return "short"
    if len(plain) > filters.max_characters:
        return "long"
    if language == "zh" and not is_chinese(text):
        return "language"
    return fault_of_text(text, filters)


def fault_of_text(text: str, filters: Filters) -> str | None:
    """Why no text of a corpus may be like this, question or answer."""
    if not text.strip():
        return "empty"
    if any(word in text for word in filters.blocked):
        return "blocked"
    if "\ufffd" in text or any(
        unicodedata.category(each) in ("Cc", "Cs", "Co") and each not in "\n\t" for each in text
    ):
        return "garbled"
    if _REFUSALS.search(text):
        return "refusal"
    if _REPEATED.search(text):
        return "repetition"
    return None


def normal(text: str) -> str:
    """Letters and digits alone, width and case aside."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", text).casefold()))


class Pool:
    """Questions that are different from each other."""

    def __init__(self, similarity: float) -> None:
        self._similarity = similarity
        self._texts: list[str] = []

    def __len__(self) -> int:
        return len(self._texts)

    def add(self, text: str) -> bool:
        """Whether nothing like it was there; then it is."""
        plain = normal(text)
        if self._texts and process.extractOne(
            plain, self._texts, scorer=Indel.normalized_similarity, score_cutoff=self._similarity
        ):
            return False
        self._texts.append(plain)
        return True

    def add_all(self, texts: Sequence[str]) -> list[bool]:
        """As `add`, one after the other, and faster."""
        plain = [normal(text) for text in texts]
        near = np.zeros(len(plain), dtype=bool)
        if self._texts and plain:
            likest = process.cdist(
                plain, self._texts, scorer=Indel.normalized_similarity, score_cutoff=self._similarity, dtype=np.float32
            )
            near = likest.max(axis=1) >= self._similarity
        taken, new = [], Pool(self._similarity)
        for text, is_near in zip(plain, near, strict=True):
            taken.append(not is_near and new.add(text))
        self._texts += new._texts
        return taken
