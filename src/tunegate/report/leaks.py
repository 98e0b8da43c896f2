"""Whether a suite's questions stand in training data: pure functions over texts.

Two stages, since either alone misleads: texts that share 13 characters in a row are candidates, and of those only the
ones that are nearly the question count. Paraphrases that share no 13 characters are not found.
"""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from rapidfuzz import fuzz
from rapidfuzz.distance import Indel

from tunegate.api.codec import Resource

GRAM = 13  # characters
SIMILAR = 0.8
_FREQUENT = 0.05  # grams of more than this share of the questions are the suite's manner of asking
_TELLING = 39  # bytes of UTF-8: 13 汉字, or some eight English words
_SHOWN = 300  # characters of a text in a report


class Hit(Resource, frozen=True, kw_only=True):
    """A question that stands in training data, where it stands most alike, and in how many records.

    similarity: of the question and the likest part of the text, in 0..1: 1 minus the normalized insert-delete distance.
    """

    item: str
    question: str
    line: int
    text: str
    similarity: float
    records: int


def find_leaks(questions: Mapping[str, str], records: Iterable[tuple[int, Sequence[str]]]) -> list[Hit]:
    """Which questions, by their ids, stand in the records: each a line number and the texts of its turns.

    Questions of less than 13 letters and digits count where a turn is exactly that. The likest comes first.
    """
    best: dict[str, tuple[float, int, str]] = {}
    count: Counter[str] = Counter()
    for line, found in _found(questions, records):
        count.update(found.keys())
        for item, (similarity, turn) in found.items():
            if similarity > best.get(item, (0.0,))[0]:
                best[item] = (similarity, line, turn)
    hits = [
        Hit(
            item=item,
            question=questions[item][:_SHOWN],
            line=line,
            text=turn[:_SHOWN],
            similarity=round(similarity, 3),
            records=count[item],
        )
        for item, (similarity, line, turn) in best.items()
    ]
    return sorted(hits, key=lambda hit: (-hit.similarity, hit.item))


def leaking_lines(questions: Mapping[str, str], records: Iterable[tuple[int, Sequence[str]]]) -> set[int]:
    """The numbers of all records in which one of the questions stands, by the same rule."""
    return {line for line, found in _found(questions, records) if found}


def _found(
    questions: Mapping[str, str], records: Iterable[tuple[int, Sequence[str]]]
) -> Iterator[tuple[int, dict[str, tuple[float, str]]]]:
    """Of each record the questions that stand in it, with how alike the likest turn is, and the turn."""
    plain = {item: normalize(question) for item, question in questions.items()}
    grams = _grams(plain)
    short: dict[str, list[str]] = defaultdict(list)
    for item, text in plain.items():
        if text and len(text) < GRAM:
            short[text].append(item)
    for line, turns in records:
        found: dict[str, tuple[float, str]] = {}
        for turn in turns:
            text = normalize(turn)
            candidates = {item for gram in grams.keys() & _windows(text) for item in grams[gram]}
            scored = {item: _similarity(plain[item], text) for item in candidates}
            scored |= dict.fromkeys(short.get(text, ()), 1.0)
            for item, similarity in scored.items():
                if similarity >= SIMILAR and similarity > found.get(item, (0.0,))[0]:
                    found[item] = (similarity, turn)
        yield line, found


def question_of(prompt: str) -> str:
    """The question without its options, where it is long enough to be told apart by itself."""
    question = prompt.split("\nA. ")[0]
    return question if len(normalize(question)) >= GRAM else prompt


def normalize(text: str) -> str:
    """Letters and digits alone, width and case aside: copies differ in spaces and punctuation."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", text).casefold()))


def _grams(plain: Mapping[str, str]) -> dict[str, list[str]]:
    """The questions of each gram, without the grams that many questions have."""
    grams: dict[str, list[str]] = defaultdict(list)
    for item, text in plain.items():
        for gram in _windows(text):
            grams[gram].append(item)
    most = max(3.0, _FREQUENT * len(plain))
    return {gram: items for gram, items in grams.items() if len(items) <= most}


def _windows(text: str) -> set[str]:
    return {text[start : start + GRAM] for start in range(len(text) - GRAM + 1)}


def _similarity(question: str, text: str) -> float:
    """Of the question and the likest part of a longer text; a text that is shorter is compared whole.

    So is any text with a question that says little, such as "So what would I pay?", which is part of many.
    """
    if len(text) <= len(question) or len(question.encode()) < _TELLING:
        return float(Indel.normalized_similarity(question, text))
    return float(fuzz.partial_ratio(question, text, score_cutoff=100 * SIMILAR)) / 100
