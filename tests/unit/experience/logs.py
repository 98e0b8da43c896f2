"""A log of a shop's answers with votes, in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec

from tunegate.api.feedback import Feedback, FeedbackRecord, Verdict
from tunegate.experience.contents import Period
from tunegate.feedback import VoteWriter
from tunegate.feedback.interactions import FOLDER, Content, Interaction, Judged, ReleaseParts
from tunegate.feedback.segments import Segment, segment_key
from tunegate.store import Store

DIGEST = "sha256:" + "ab" * 32
MONDAY = date(2026, 3, 2)
WEEK = Period(since=MONDAY, until=MONDAY + timedelta(days=6))
PRICE = ("这个电水壶多少钱？", "电水壶多少钱一个？", "电水壶现在多少钱？", "请问电水壶多少钱")
DELIVERY = ("快递几天能到？", "今天下单快递几天到？", "快递要几天才能到？", "下单以后快递几天能到")


def answered(
    number: int,
    question: str,
    verdict: Verdict | None = None,
    *,
    week: int = 0,
    answer: str = "不知道。",
    tools: dict[str, int] | None = None,
    sources: Sequence[str] = (),
    prompt: str | None = None,
    conversation: str | None = None,
    logged: bool = True,
    texts: bool = True,
    **said: Any,
) -> Judged:
    """The answer with this number; week 0 is the week looked at, -1 the one before."""
    moment = datetime.combine(MONDAY, datetime.min.time(), UTC) + timedelta(days=7 * week, minutes=number)
    answer_id = f"chatcmpl-{week}-{number}"
    content = Content(
        messages=({"role": "user", "content": question},), answer=answer, sources=tuple({"uri": uri} for uri in sources)
    )
    interaction = Interaction(
        id=answer_id,
        model="shop",
        digest=DIGEST,
        release=ReleaseParts(),
        conversation=conversation,
        answered=moment,
        finish="stop",
        prompt_template=prompt,
        seconds=0.5,
        tools=tools or {},
        content=content if texts else None,
    )
    vote = None
    if verdict:
        feedback = Feedback(response_id=answer_id, verdict=verdict, **said)
        vote = FeedbackRecord(digest=DIGEST, answered=moment, received=moment, feedback=feedback)
    return Judged(interaction=interaction if logged else None, vote=vote)


def log(*found: Judged) -> Callable[[date, date], Iterator[Judged]]:
    """How the days of a log are read."""

    def read(since: date, until: date) -> Iterator[Judged]:
        for each in found:
            known = each.interaction or each.vote
            assert known is not None
            if since <= known.answered.date() <= until:
                yield each

    return read


def keep_in(store: Store) -> None:
    """A week's log in a store: one disliked answer that was corrected, one that was not, and one liked."""
    found = [
        answered(1, PRICE[0], "down", correction="99 元。"),
        answered(2, DELIVERY[0], "down"),
        answered(3, PRICE[1], "up"),
    ]
    rows = [msgspec.json.encode(each.interaction) for each in found]
    store.put(segment_key(FOLDER, MONDAY, "a" * 12, 0), Segment().with_lines(rows).to_bytes())
    VoteWriter(store).write([each.vote for each in found if each.vote])
