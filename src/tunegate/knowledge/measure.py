"""How good an index is: is the right chunk among the first, and does it know what it does not know."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tunegate.api.codec import Document, Resource, from_json
from tunegate.api.digest import Digest
from tunegate.api.errors import KnowledgeError
from tunegate.api.evaluation import Metric
from tunegate.knowledge.contents import Calibration
from tunegate.knowledge.documents import Chunk, Progress
from tunegate.knowledge.evidence import learn
from tunegate.knowledge.index import Found, Searcher

RANKS = (1, 3, 5, 10)


class Question(Resource, frozen=True, kw_only=True):
    """A question, and how to know a chunk that answers it: by its source, and by all texts that it contains.

    group: what it is counted with, too. Neither source nor contains: the documents do not answer it.
    """

    id: str
    question: str
    source: str = ""
    contains: tuple[str, ...] = ()
    group: str = ""

    @property
    def is_answerable(self) -> bool:
        return bool(self.source or self.contains)

    def is_answered_by(self, chunk: Chunk) -> bool:
        whole = chunk.whole
        return (not self.source or chunk.source == self.source) and all(text in whole for text in self.contains)


@dataclass(frozen=True)
class Questions:
    """A set of questions with the digest of its file."""

    digest: str
    questions: tuple[Question, ...]


class Miss(Resource, frozen=True, kw_only=True):
    """A question that was not dealt with as it should be. rank: of the first right chunk; None: not among the first."""

    id: str
    question: str
    rank: int | None = None
    refused: bool
    first: str = ""


class Measurement(Document, frozen=True, kw_only=True):
    """The numbers of an index on a set of questions, both by digest."""

    schema: Literal["tunegate.io/knowledge-measurement/v1"] = "tunegate.io/knowledge-measurement/v1"
    index: str
    questions: str
    metrics: tuple[Metric, ...]
    misses: tuple[Miss, ...]

    def metric(self, name: str) -> Metric | None:
        return next((metric for metric in self.metrics if metric.name == name), None)


def read_questions(path: Path) -> Questions:
    """A JSONL file of questions. Raises UsageError for a line that is none, KnowledgeError where there are none."""
    try:
        body = path.read_bytes()
    except OSError as error:
        raise KnowledgeError(f"{path} can't be read: {error.strerror}; name a file of questions.") from None
    lines = [(number, line) for number, line in enumerate(body.splitlines(), 1) if line.strip()]
    found = tuple(from_json(line, Question, f"{path.name}, line {number}") for number, line in lines)
    if not found:
        raise KnowledgeError(f"{path} holds no questions; write one JSON object a line.")
    return Questions(str(Digest.of_bytes(body)), found)


def measure(index: Searcher, digest: str, questions: Questions, progress: Progress | None = None) -> Measurement:
    """Ask all questions. digest: of the index."""
    asked = ask(index, questions, progress)
    misses = tuple(_miss(question, found) for question, found in asked if not is_right(question, found))
    return Measurement(index=digest, questions=questions.digest, metrics=metrics_of(asked), misses=misses)


def metrics_of(asked: Sequence[tuple[Question, Found]]) -> tuple[Metric, ...]:
    """`recall_at_N`, also of each group; how many are `answered` and `refused` as they should be; `separation`."""
    answerable = [(question, found) for question, found in asked if question.is_answerable]
    unanswerable = [found for question, found in asked if not question.is_answerable]
    metrics = []
    for group in ("", *sorted({question.group for question, _ in answerable} - {""})):
        ranks = [rank_of(question, found) for question, found in answerable if group in ("", question.group)]
        for most in RANKS if not group else (5,):
            metrics.append(_share(f"recall_at_{most}{group and f'/{group}'}", [0 < rank <= most for rank in ranks]))
    metrics.append(_share("answered", [found.is_answerable for _, found in answerable]))
    metrics.append(_share("refused", [not found.is_answerable for found in unanswerable]))
    told_apart = separation([_evidence(found) for _, found in answerable], [_evidence(found) for found in unanswerable])
    metrics.append(Metric(name="separation", value=told_apart, n=len(asked)))
    return tuple(metrics)


def calibration(index: Searcher, questions: Questions, progress: Progress | None = None) -> Calibration:
    """What a set of questions teaches about an index. Raises KnowledgeError where it has only one kind of them."""
    asked = ask(index, questions, progress)
    answerable = [found.signs for question, found in asked if question.is_answerable]
    others = [found.signs for question, found in asked if not question.is_answerable]
    if not answerable or not others:
        raise KnowledgeError(
            "The questions can't calibrate an index: there must be some that the documents answer, and some (without "
            "source and contains) that they don't; add those."
        )
    return Calibration(weights=learn(answerable, others), questions=questions.digest)


def separation(good: Sequence[float], bad: Sequence[float]) -> float | None:
    """The chance that an answerable question has more evidence than another one (the area under the ROC curve)."""
    if not good or not bad:
        return None
    won = sum((a > b) + (a == b) / 2 for a in good for b in bad)
    return round(won / (len(good) * len(bad)), 4)


def _evidence(found: Found) -> float:
    """Where an index isn't calibrated, all that was found is equally good."""
    return float(bool(found.hits)) if found.evidence is None else found.evidence


def rank_of(question: Question, found: Found) -> int:
    """The number of the first hit that answers the question; 0: none does."""
    return next((hit.number for hit in found.hits if question.is_answered_by(hit.chunk)), 0)


def ask(index: Searcher, questions: Questions, progress: Progress | None = None) -> list[tuple[Question, Found]]:
    """Each question with what the index has for it. Raises as the embedder."""
    asked = []
    for question in questions.questions:
        asked.append((question, index.search(question.question, max(RANKS))))
        if progress:
            progress("ask", len(asked), len(questions.questions))
    return asked


def _share(name: str, outcomes: Sequence[bool]) -> Metric:
    if not outcomes:
        return Metric(name=name, n=0)
    share = sum(outcomes) / len(outcomes)
    error = math.sqrt(share * (1 - share) / len(outcomes))
    return Metric(name=name, value=round(share, 4), stderr=round(error, 4), n=len(outcomes))


def is_right(question: Question, found: Found) -> bool:
    """Whether a question is answered or refused as it should be, with a right chunk among the first five."""
    is_found = not question.is_answerable or 0 < rank_of(question, found) <= 5
    return is_found and found.is_answerable == question.is_answerable


def _miss(question: Question, found: Found) -> Miss:
    return Miss(
        id=question.id,
        question=question.question,
        rank=(rank_of(question, found) if question.is_answerable else 0) or None,
        refused=not found.is_answerable,
        first=found.hits[0].chunk.path if found.hits else "",
    )
