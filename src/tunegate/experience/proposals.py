"""What follows from disliked answers: people decide on them on the review page, then they go into suite and corpus."""

from __future__ import annotations

from tunegate.evaluation.business import Message
from tunegate.experience.contents import Disliked, Experience
from tunegate.feedback.interactions import text_of
from tunegate.knowledge.words import is_chinese
from tunegate.review.items import CORPUS, SUITE, Answer, Item, Review, Reviewed, digest_of

_ROLES = ("system", "user", "assistant")


def to_review(experience: Experience, reviewers: int = 1) -> Review:
    """The proposals as items of a review, which has none in a week without disliked answers."""
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


def _item(disliked: Disliked, version: int) -> Item:
    last = max(place for place, said in enumerate(disliked.messages) if said.get("role") == "user")
    messages = tuple(
        Message(role=said["role"], content=text_of(said.get("content")))
        for said in disliked.messages[: last + 1]
        if said.get("role") in _ROLES and text_of(said.get("content"))
    )
    return Item(
        question=disliked.id,
        messages=messages,
        context=_context(disliked, is_chinese(messages[-1].content)),
        reference=disliked.correction,
        answers=(Answer(version=version, text=disliked.answer),),
        digest=digest_of("experience", disliked.id, disliked.answer),
        origin={"kind": "experience", "version": disliked.digest, "topic": disliked.topic, "prompt": disliked.prompt},
    )


def _context(disliked: Disliked, chinese: bool) -> str:
    """What is known of the answer, a line each, in the language of the question."""
    topic, rated, tags, comment = (
        ("话题：{}", "评分：{} / 5", "标签：{}", "用户说：{}")
        if chinese
        else ("Topic: {}", "Rated {} of 5", "Tags: {}", "The user said: {}")
    )
    told = (
        (topic, disliked.topic),
        (rated, disliked.rating),
        (tags, ", ".join(disliked.tags)),
        (comment, disliked.comment),
    )
    return "\n".join(text.format(value) for text, value in told if value)
