"""Who judges what, and in which order and on which side they see it. Pure functions.

Order and sides come from the review's digest, the item and the reviewer alone, so that a restart changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from tunegate.review.items import Item, Review
from tunegate.review.marks import Marks

Judged = dict[str, set[str]]  # digest of an item -> who judged it by every criterion


@dataclass(frozen=True)
class Progress:
    """Judgements: an item by one reviewer counts one."""

    done: int
    total: int


def judged(review: Review, marks: Marks) -> Judged:
    """Who is done with which item."""
    names = [criterion.name for criterion in review.criteria]
    people = {reviewer for _, reviewer, _ in marks}
    return {
        digest: {name for name in people if all((digest, name, criterion) in marks for criterion in names)}
        for digest in review.judged
    }


def needed(review: Review) -> dict[str, int]:
    """How many reviewers each item gets: `share` of them, drawn by the review's digest, get several."""
    drawn = sorted(review.judged, key=lambda digest: _draw(review.digest, digest))
    several = set(drawn[: round(review.share * len(drawn))])
    return {digest: review.reviewers if digest in several else 1 for digest in review.judged}


def progress(review: Review, done: Judged) -> Progress:
    """How far the review is; more reviewers than an item needs don't count."""
    wanted = needed(review)
    return Progress(sum(min(len(done[digest]), wanted[digest]) for digest in wanted), sum(wanted.values()))


def order(review: Review, reviewer: str) -> list[str]:
    """All items by digest, in the order in which this reviewer would get them."""
    return sorted(review.judged, key=lambda digest: _draw(review.digest, digest, reviewer))


def left(review: Review, item: Item, reviewer: str) -> int:
    """Which of the item's answers this reviewer sees first."""
    return _draw(review.digest, item.digest, reviewer, "side")[0] % len(item.answers)


def missing(review: Review, done: Judged, reviewer: str) -> list[str]:
    """What lacks a judgement that this reviewer could give, by digest, in this reviewer's order."""
    wanted = needed(review)
    return [
        digest
        for digest in order(review, reviewer)
        if reviewer not in done[digest] and len(done[digest]) < wanted[digest]
    ]


def next_item(review: Review, done: Judged, open_with: Mapping[str, str], reviewer: str) -> str | None:
    """The digest of what this reviewer gets next; None when nothing is left for this person.

    open_with: what others are looking at. It is left to them while there is something else, and given away then: they
    may have stopped.
    """
    wanted, open_to_all = needed(review), missing(review, done, reviewer)
    looked_at: Collection[str] = [
        digest for name, digest in open_with.items() if name != reviewer and name not in done[digest]
    ]
    free = [
        digest
        for digest in open_to_all
        if len(done[digest]) + sum(other == digest for other in looked_at) < wanted[digest]
    ]
    return next(iter(free or open_to_all), None)


def _draw(*parts: str) -> bytes:
    return hashlib.sha256("\0".join(parts).encode()).digest()
