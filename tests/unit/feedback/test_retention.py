from __future__ import annotations

from datetime import date

from tests.builders import make_vote
from tests.documents import Documents
from tunegate.api.codec import to_json
from tunegate.feedback import VoteWriter
from tunegate.feedback.interactions import FOLDER
from tunegate.feedback.retention import expired
from tunegate.feedback.segments import Segment, segment_key

DIGEST = "sha256:" + "ab" * 32
DAY = 86400


def test_whole_days_expire_by_the_day_of_the_answer() -> None:
    store = Documents()
    for day in range(4):  # 2026-01-01 to 04
        VoteWriter(store).write([make_vote(DIGEST, answered=day * DAY)])
        key = segment_key(FOLDER, date(2026, 1, 1 + day), "a" * 12, 0)
        store.put(key, Segment().with_lines([b"{}"]).to_bytes())
    old = f".tunegate/feedback/{'ab' * 32}/anonymous/chatcmpl-1.json"
    store.put(old, to_json(make_vote(DIGEST)))
    store.put("shop/run-1/checkpoint-1/manifest.json", b"{}")
    store.written = {old: 3 * DAY + 1.0}
    today = date(2026, 1, 5)

    def days(*, answers: int | None = None, votes: int | None = None) -> list[str]:
        found = expired(store, today, answers=answers, votes_kept=votes)
        return sorted(key.rsplit("/", 2)[-2] if key != old else "old" for key in found)

    assert days() == []
    assert days(answers=2) == ["2026-01-01", "2026-01-02"]
    assert days(votes=3) == ["2026-01-01", "old"]
    assert days(answers=4, votes=4) == []
    assert days(answers=0, votes=None) == [f"2026-01-0{day}" for day in (1, 2, 3, 4)]
