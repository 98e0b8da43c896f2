"""What keeps a text out of a corpus, as a word for it. Pure functions that hold for Chinese.

The usual ones don't: a tokenizer of ROUGE that knows ASCII alone finds two equal Chinese texts 0 alike, and counting
words between spaces drops every Chinese sentence. Character ROUGE-L is what rapidfuzz calls Indel similarity.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from rapidfuzz import process
from rapidfuzz.distance import Indel

from tunegate.corpus.plan import Filters
from tunegate.knowledge.words import is_chinese

_NUMBERED = re.compile(  # small models write the word, too
    r"^\s*(?:(?:question|问题)?\s*\d{1,3}\s*[.、)）:：]|[-*•])\s*(.+?)\s*$", re.IGNORECASE
)
_SCORE = re.compile(r"(?:分数|score)\s*[:：]?\s*([1-5])(?!\s*[./]?\d)", re.IGNORECASE)
_REFUSALS = re.compile(  # of a model, not of a shop: 抱歉，这款没有货 is an answer
    r"作为(?:一个|一名)?\s*(?:AI|人工智能|语言模型)|(?:抱歉|对不起)[^。！]{0,6}我(?:无法|不能)(?:回答|协助|生成|完成|参与|继续)"
    r"|\bas an? (?:AI|language model)\b|\bI(?:'m| am) (?:sorry|unable)[^.]{0,20} (?:assist|comply|help with)"
    r"|\bI can(?:no|')t (?:assist|comply|fulfill|help with)",
    re.IGNORECASE,
)
CUT = "[…]"
"""Stands behind a reply that was cut off at its most tokens."""
_BLOCK, _CHOICES = 512, 1 << 15  # texts that are compared at once: scores of 64 MiB
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
    if text.endswith(CUT):
        return "cut off"
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
    """Questions that are different from each other.

    What decides is the Indel similarity of two texts. In front of it stands that of their folded texts, which is never
    lower and compares several at once, so it leaves out only what is different for sure.
    """

    def __init__(self, similarity: float) -> None:
        self._similarity = similarity
        self._texts: list[str] = []
        self._folded: list[bytes] = []

    def __len__(self) -> int:
        return len(self._texts)

    def add(self, text: str) -> bool:
        """Whether nothing like it was there; then it is."""
        return self.add_all([text])[0]

    def add_all(self, texts: Sequence[str], compared: Callable[[int], None] = lambda count: None) -> list[bool]:
        """As `add`, one after the other, and faster. compared: gets how many more were."""
        new: list[bool] = []
        for start in range(0, len(texts), _BLOCK):
            block = [normal(text) for text in texts[start : start + _BLOCK]]
            new += self._add_block(block)
            compared(len(block))
        return new

    def _add_block(self, texts: Sequence[str]) -> list[bool]:
        folded = [_fold(text) for text in texts]
        near = np.zeros(len(texts), dtype=bool)
        for start in range(0, len(self._texts), _CHOICES):
            there = slice(start, start + _CHOICES)
            rest = np.flatnonzero(~near).tolist()
            scores = self._scores([folded[place] for place in rest], self._folded[there])
            near[rest] = [
                self._is_near(texts[place], row, self._texts[there]) for place, row in zip(rest, scores, strict=True)
            ]
        rest = np.flatnonzero(~near).tolist()
        asked = [folded[place] for place in rest]
        scores = self._scores(asked, asked[:])  # a list beside itself is compared one pair at a time
        new: list[int] = []
        for number, place in enumerate(rest):
            if not self._is_near(texts[place], scores[number, new], [texts[rest[other]] for other in new]):
                new.append(number)
        self._texts += [texts[rest[number]] for number in new]
        self._folded += [asked[number] for number in new]
        kept = {rest[number] for number in new}
        return [place in kept for place in range(len(texts))]

    def _scores(self, some: Sequence[bytes], others: Sequence[bytes]) -> npt.NDArray[np.float32]:
        """Of each with each, 0 below the pool's similarity."""
        if not (some and others):
            return np.zeros((len(some), len(others)), dtype=np.float32)
        scorer, dtype = Indel.normalized_similarity, np.float32
        return process.cdist(some, others, scorer=scorer, score_cutoff=self._similarity, dtype=dtype, workers=-1)

    def _is_near(self, text: str, scores: npt.NDArray[np.float32], others: Sequence[str]) -> bool:
        """Whether it is like one of the others whose folded texts are."""
        return any(
            Indel.normalized_similarity(text, others[place], score_cutoff=self._similarity)
            for place in np.flatnonzero(scores).tolist()
        )


def _fold(text: str) -> bytes:
    """The low byte of each character. Equal characters stay equal, so no two texts become less similar; rapidfuzz
    compares bytes three times as fast as Chinese."""
    return text.encode("utf-32-le")[::4]
