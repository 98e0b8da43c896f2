"""What people decide of a corpus: the answers that the judge gave too little, or said nothing of."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from tunegate.api.errors import UsageError
from tunegate.corpus.records import Rejected
from tunegate.evaluation.business import Message
from tunegate.knowledge.words import is_chinese
from tunegate.review.items import CORPUS, Answer, Item, Review, Reviewed, digest_of


def to_review(name: str, queue: Sequence[Rejected], reviewers: int = 1) -> Review:
    """The queue as items of a review; the answer is taken as it is unless somebody writes a better one. Raises
    UsageError where nothing waits."""
    if not queue:
        raise UsageError("Nothing waits for people: the judge found every answer good.")
    items = tuple(
        Item(
            question=hashlib.sha256(each.question.encode()).hexdigest()[:16],
            messages=(*_system(each), Message(role="user", content=each.question)),
            context=_why(each),
            reference=each.answer,
            answers=(Answer(version=0, text=each.answer),),
            digest=digest_of("corpus", each.system, each.question, each.answer),
            origin=msgspec.to_builtins(each.origin) if each.origin else {},
        )
        for each in queue
    )
    digest = digest_of([item.digest for item in items])
    return Review(
        suite=f"corpus-{name}",
        digest=digest,
        mode="single",
        versions=(Reviewed(name="teacher", digest=digest),),
        criteria=(CORPUS,),
        reviewers=reviewers,
        share=1.0,
        items=items,
    )


def _system(each: Rejected) -> tuple[Message, ...]:
    return (Message(role="system", content=each.system),) if each.system else ()


def _why(each: Rejected) -> str:
    """Why it waits, in the language of the question."""
    if is_chinese(each.question):
        return "打分时没有给出分数" if each.score is None else f"打分偏低：{each.score} / 5"
    return each.reason if each.score is None else f"{each.reason}: {each.score} of 5"
