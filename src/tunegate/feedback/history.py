"""What was answered and what was said of it, joined day by day, so that a year of it needs the memory of a day."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

from tunegate.feedback.interactions import Judged, days, read_day
from tunegate.feedback.segments import Documents
from tunegate.feedback.votes import FeedbackLog


def judged(
    store: Documents, since: date | None, until: date | None, digest: str | None, damaged: list[str]
) -> Iterator[Judged]:
    """The answers of the days from `since` to `until`, with their votes, and the votes on answers that nobody logged.

    digest: of one version alone. What can't be read is told in `damaged`, in sentences.
    """
    log = FeedbackLog(store)
    for day in sorted({*days(store), *log.days()}):
        if (since and day < since) or (until and day > until):
            continue
        votes = log.of_day(day, damaged)
        for answer in read_day(store, day, damaged):
            vote = votes.pop(answer.id, None)
            if digest in (None, answer.digest):
                yield Judged(interaction=answer, vote=vote)
        for vote in votes.values():
            if digest in (None, vote.digest):
                yield Judged(interaction=None, vote=vote)
