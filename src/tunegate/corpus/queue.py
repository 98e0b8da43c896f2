"""What people decide of a corpus: the answers that the judge gave too little, or said nothing of."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from tunegate.api.errors import UsageError
from tunegate.corpus.records import Rejected
from tunegate.evaluation.business import Message
from tunegate.review.decisions import CORPUS
from tunegate.review.items import Answer, Item, Review, Reviewed, digest_of


def to_review(name: str, queue: Sequence[Rejected], reviewers: int = 1) -> Review:
    """The queue as items of a review; the answer is taken as it is unless somebody writes a better one. Raises
    UsageError where nothing waits."""
    if not queue:
        raise UsageError("Nothing waits for people: the judge found every answer good.")
    items = tuple(
        Item(
            question=hashlib.sha256(each.question.encode()).hexdigest()[:16],
            messages=(Message(role="user", content=each.question),),
            context=each.reason if each.score is None else f"{each.reason}: {each.score} of 5",
            reference=each.answer,
            answers=(Answer(version=0, text=each.answer),),
            digest=digest_of("corpus", each.question, each.answer),
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
