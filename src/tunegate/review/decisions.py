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
from tunegate.review.items import CORPUS, SUITE, Item, Review
from tunegate.review.marks import COMMENT, Marks


@dataclass(frozen=True)
class Taken:
    """What reviewers said yes to.

    questions: for a business suite that people judge. rows: dialogues with the better answer, in OpenAI's form. pairs:
    the same with the better answer as `chosen` and the disliked one as `rejected`. unanswered: ids of what should be
    learned without anybody having written how. disputed: ids of what several wrote different answers to; nothing of it
    is taken. undecided: how many nobody has judged yet.
    """

    questions: tuple[Question, ...]
    rows: tuple[dict[str, Any], ...]
    pairs: tuple[dict[str, Any], ...]
    unanswered: tuple[str, ...]
    disputed: tuple[str, ...]
    undecided: int


def take(review: Review, marks: Marks) -> Taken:
    """What most reviewers of an item said yes to."""
    if not review.is_of_decisions:
        raise UsageError(
            "This is no review of proposals; make one with `tunegate experience review` or `tunegate corpus review`."
        )
    questions, rows, pairs = list[Question](), list[dict[str, Any]](), list[dict[str, Any]]()
    unanswered, disputed, undecided = list[str](), list[str](), 0
    for digest, item in review.judged.items():
        said = _said(review, marks, digest)
        if not all(said[criterion.name] for criterion in review.criteria):
            undecided += 1
            continue
        yes = {criterion.name for criterion in review.criteria if fmean(said[criterion.name].values()) > 0.5}
        written = _better(item, said)
        if yes and len(written) > 1:
            disputed.append(item.question)
            continue
        better = next(iter(written), item.reference)
        if SUITE.name in yes:
            question = Question(id=item.question, messages=item.messages, reference=better, context=item.context)
            questions.append(question)
        if CORPUS.name in yes and not better:
            unanswered.append(item.question)
        elif CORPUS.name in yes:
            reviewers = sorted(who for who, value in said[CORPUS.name].items() if value)
            row, pair = _learned(review, item, better, reviewers)
            rows.append(row)
            pairs += [pair] if better != item.answers[0].text else []
    return Taken(tuple(questions), tuple(rows), tuple(pairs), tuple(unanswered), tuple(disputed), undecided)


def _said(review: Review, marks: Marks, digest: str) -> dict[str, dict[str, Any]]:
    """What was said of an item: by criterion, or as the comment, and by reviewer."""
    names = [*(criterion.name for criterion in review.criteria), COMMENT]
    own = [mark for (answers, _, _), mark in marks.items() if answers == digest]
    return {name: {mark.reviewer: mark.value for mark in own if mark.criterion == name} for name in names}


def _better(item: Item, said: dict[str, dict[str, Any]]) -> list[str]:
    """The different answers that reviewers wrote who said yes to something; not those that they left as they were."""
    known = {item.reference.strip(), item.answers[0].text.strip(), ""}
    agreed = {who for name, given in said.items() if name != COMMENT for who, value in given.items() if value}
    texts = (str(text).strip() for who, text in said[COMMENT].items() if who in agreed)
    return [text for text in dict.fromkeys(texts) if text not in known]


def _learned(review: Review, item: Item, better: str, reviewers: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The dialogue with the better answer, and the pair with the one that was given."""
    asked = [{"role": message.role, "content": message.content} for message in item.messages]
    chosen = [{"role": "assistant", "content": better}]
    about: dict[str, Any] = {"id": item.question, "source": review.suite, "reviewers": reviewers}
    about |= {"origin": item.origin} if item.origin else {}
    rejected = [{"role": "assistant", "content": item.answers[0].text}]
    return {**about, "messages": asked + chosen}, {**about, "prompt": asked, "chosen": chosen, "rejected": rejected}


def new_lines(kept: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What of `found` is not there yet, by id: the same review may be taken again."""
    ids = {each.get("id") for each in kept}
    return [each for each in found if each["id"] not in ids]
