"""What follows from disliked answers: people decide on them on the review page, then they go into suite and corpus.

Pure: from an experience review to one that people do, and from their marks to questions, dialogues and pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from tunegate.api.errors import UsageError
from tunegate.evaluation.business import Message, Question
from tunegate.evaluation.criteria import Criterion
from tunegate.experience.contents import Disliked, Experience, text_of
from tunegate.review.items import Answer, Item, Review, Reviewed, digest_of
from tunegate.review.marks import COMMENT, Marks

SUITE = Criterion(name="suite", question="Ask every version this from now on?", labels=("no", "yes"))
CORPUS = Criterion(
    name="corpus",
    question="Learn a better answer? It is the one you write as a comment, or else the reference.",
    labels=("no", "yes"),
)
_ROLES = ("system", "user", "assistant")


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


def to_review(experience: Experience, reviewers: int = 1) -> Review:
    """The proposals as items of a review. Raises UsageError where there are none."""
    if not experience.proposals:
        raise UsageError("There is nothing to propose: no disliked answer of this period has its texts in the log.")
    digests = list(dict.fromkeys(each.digest for each in experience.proposals))
    items = tuple(_item(each, digests.index(each.digest)) for each in experience.proposals)
    return Review(
        suite=f"experience-{experience.period.since}",
        digest=digest_of([item.digest for item in items]),
        mode="single",
        versions=tuple(Reviewed(name="served", digest=digest) for digest in digests),
        criteria=(SUITE, CORPUS),
        reviewers=reviewers,
        share=1.0,
        items=items,
    )


def take(review: Review, marks: Marks) -> Taken:
    """What most reviewers of an item said yes to."""
    if review.criteria != (SUITE, CORPUS):
        raise UsageError("This is no review of proposals; make one with `tunegate experience review`.")
    questions, rows, pairs, unanswered, undecided = [], [], [], list[str](), 0
    for digest, item in review.judged.items():
        own = [mark for (answers, _, _), mark in marks.items() if answers == digest]
        yes = {
            name: [mark.reviewer for mark in own if mark.criterion == name and mark.value == 1]
            for name in (SUITE.name, CORPUS.name)
        }
        said = {name: [int(mark.value) for mark in own if mark.criterion == name] for name in yes}
        if not all(said.values()):
            undecided += 1
            continue
        better = next((str(m.value) for m in own if m.criterion == COMMENT and str(m.value).strip()), item.reference)
        if fmean(said[SUITE.name]) > 0.5:
            question = Question(id=item.question, messages=item.messages, reference=better, context=item.context)
            questions.append(question)
        if fmean(said[CORPUS.name]) > 0.5:
            if not better:
                unanswered.append(item.question)
                continue
            asked = [{"role": message.role, "content": message.content} for message in item.messages]
            chosen = [{"role": "assistant", "content": better}]
            origin = {"id": item.question, "source": review.suite, "reviewers": sorted(yes[CORPUS.name])}
            rows.append({**origin, "messages": asked + chosen})
            rejected = [{"role": "assistant", "content": item.answers[0].text}]
            pairs.append({**origin, "prompt": asked, "chosen": chosen, "rejected": rejected})
    return Taken(tuple(questions), tuple(rows), tuple(pairs), tuple(unanswered), undecided)


def _item(disliked: Disliked, version: int) -> Item:
    last = max(place for place, said in enumerate(disliked.messages) if said.get("role") == "user")
    messages = tuple(
        Message(role=said["role"], content=text_of(said.get("content")))
        for said in disliked.messages[: last + 1]
        if said.get("role") in _ROLES and text_of(said.get("content"))
    )
    said = [f"Topic: {disliked.topic}"]
    said += [f"Rated {disliked.rating} of 5"] if disliked.rating else []
    said += [f"Tags: {', '.join(disliked.tags)}"] if disliked.tags else []
    said += [f"The user said: {disliked.comment}"] if disliked.comment else []
    return Item(
        question=disliked.id,
        messages=messages,
        context="\n".join(said),
        reference=disliked.correction,
        answers=(Answer(version=version, text=disliked.answer),),
        digest=digest_of("experience", disliked.id, disliked.answer),
    )


def new_lines(kept: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What of `found` is not there yet, by id: the same review may be taken again."""
    ids = {each.get("id") for each in kept}
    return [each for each in found if each["id"] not in ids]
