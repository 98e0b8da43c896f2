"""Decisions on answers: what every version is to be asked from now on, and what is to be learned.

Pure: from the marks of a review of proposals to questions, dialogues and pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from tunegate.api.errors import UsageError
from tunegate.evaluation.business import Question
from tunegate.evaluation.criteria import Criterion
from tunegate.review.items import Review
from tunegate.review.marks import COMMENT, Marks

SUITE = Criterion(name="suite", question="Ask every version this from now on?", labels=("no", "yes"))
CORPUS = Criterion(
    name="corpus",
    question="Learn a better answer? It is the one you write as a comment, or else the reference.",
    labels=("no", "yes"),
)


@dataclass(frozen=True)
class Taken:
    """What reviewers said yes to.

    questions: for a business suite that people judge. rows: dialogues with the better answer, in OpenAI's form. pairs:
    the same with the better answer as `chosen` and the disliked one as `rejected`. unanswered: ids of what should be
    learned without anybody having written how. undecided: how many nobody has judged yet.
    """

    questions: tuple[Question, ...]
    rows: tuple[dict[str, Any], ...]
    pairs: tuple[dict[str, Any], ...]
    unanswered: tuple[str, ...]
    undecided: int


def take(review: Review, marks: Marks) -> Taken:
    """What most reviewers of an item said yes to."""
    if not {criterion.name for criterion in review.criteria} <= {SUITE.name, CORPUS.name}:
        raise UsageError(
            "This is no review of proposals; make one with `tunegate experience review` or `tunegate corpus review`."
        )
    questions, rows, pairs, unanswered, undecided = [], [], [], list[str](), 0
    for digest, item in review.judged.items():
        own = [mark for (answers, _, _), mark in marks.items() if answers == digest]
        said = {
            criterion.name: {mark.reviewer: int(mark.value) for mark in own if mark.criterion == criterion.name}
            for criterion in review.criteria
        }
        if not all(said.values()):
            undecided += 1
            continue
        yes = {name for name, given in said.items() if fmean(given.values()) > 0.5}
        better = next((str(m.value) for m in own if m.criterion == COMMENT and str(m.value).strip()), item.reference)
        if SUITE.name in yes:
            question = Question(id=item.question, messages=item.messages, reference=better, context=item.context)
            questions.append(question)
        if CORPUS.name in yes:
            if not better:
                unanswered.append(item.question)
                continue
            asked = [{"role": message.role, "content": message.content} for message in item.messages]
            chosen = [{"role": "assistant", "content": better}]
            origin = {
                "id": item.question,
                "source": review.suite,
                "reviewers": sorted(who for who, value in said[CORPUS.name].items() if value),
            }
            rows.append({**origin, "messages": asked + chosen})
            if better != item.answers[0].text:
                rejected = [{"role": "assistant", "content": item.answers[0].text}]
                pairs.append({**origin, "prompt": asked, "chosen": chosen, "rejected": rejected})
    return Taken(tuple(questions), tuple(rows), tuple(pairs), tuple(unanswered), undecided)


def new_lines(kept: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What of `found` is not there yet, by id: the same review may be taken again."""
    ids = {each.get("id") for each in kept}
    return [each for each in found if each["id"] not in ids]
