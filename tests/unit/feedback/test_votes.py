from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tunegate.api.errors import StoreError, UsageError
from tunegate.api.feedback import Feedback, FeedbackRecord, Tally, Verdict, step_tag
from tunegate.feedback import FeedbackLog, ResponseIds
from tunegate.feedback.votes import without_controls

IDS = ResponseIds(bytes(32), "m")
ONE, TWO = "sha256:" + "1" * 64, "sha256:" + "2" * 64
START = datetime(2026, 1, 1, tzinfo=UTC)


class Documents:
    def __init__(self) -> None:
        self.bodies: dict[str, bytes] = {}
        self.gets = 0

    def put_new(self, key: str, body: bytes) -> bool:
        return self.bodies.setdefault(key, body) is body

    def get(self, key: str) -> bytes | None:
        self.gets += 1
        return self.bodies.get(key)

    def keys(self, prefix: str) -> list[str]:
        return [key for key in self.bodies if key.startswith(prefix)]


@pytest.fixture
def store() -> Documents:
    return Documents()


@pytest.fixture
def log(store: Documents) -> FeedbackLog:
    return FeedbackLog(store)


def record(
    verdict: Verdict = "up", *, digest: str = ONE, minute: int = 0, received: int = 0, step: str | None = None
) -> FeedbackRecord:
    answered = START + timedelta(minutes=minute)
    feedback = Feedback(response_id=IDS.issue(digest, answered), verdict=verdict)
    return FeedbackRecord(
        digest=digest, step=step, answered=answered, received=START + timedelta(hours=received), feedback=feedback
    )


def test_the_first_verdict_counts_and_a_second_is_a_repeat(log: FeedbackLog, store: Documents) -> None:
    first = record("up")
    second = FeedbackRecord(
        digest=first.digest,
        answered=first.answered,
        received=first.received,
        feedback=Feedback(response_id=first.feedback.response_id, verdict="down"),
    )

    assert log.record(first)
    assert not FeedbackLog(store).record(second)  # on another replica
    assert log.tally(ONE) == Tally(up=1)


def test_the_key_is_the_digest_the_user_and_the_id(log: FeedbackLog, store: Documents) -> None:
    kept = record()
    log.record(kept)
    log.record(kept, "0a1b")

    folder, name = f".tunegate/feedback/{'1' * 64}", f"{kept.feedback.response_id}.json"
    assert list(store.bodies) == [f"{folder}/anonymous/{name}", f"{folder}/0a1b/{name}"]


def test_of_one_user_the_first_three_count_and_all_are_kept(log: FeedbackLog, store: Documents) -> None:
    counted = []
    for hour in range(5):
        log.record(record("up" if hour < 3 else "down", received=hour), "anna")
        counted.append(FeedbackLog(store).counts(ONE, "anna"))  # on another replica
    log.record(record("down"), "ben")

    assert counted == [True, True, True, False, False]
    assert log.counts(ONE, "ben")
    assert log.counts(TWO, "anna")
    assert log.tally(ONE) == Tally(up=3, down=1)
    assert len(log.list(ONE)) == 6


def test_a_user_of_long_ago_counts_again_in_a_later_span(log: FeedbackLog) -> None:
    for minute in range(5):
        log.record(record("up", minute=minute, received=minute), "anna")
    log.record(record("down", minute=9, received=9), "anna")

    assert log.tally(ONE, START + timedelta(minutes=4)) == Tally(up=1, down=1)


def test_all_verdicts_of_unnamed_users_count(log: FeedbackLog) -> None:
    for _ in range(5):
        log.record(record("down"))
        assert log.counts(ONE, None)

    assert log.tally(ONE) == Tally(down=5)


def test_versions_are_counted_apart(log: FeedbackLog) -> None:
    for each in (record("up"), record("down"), record("down", digest=TWO)):
        log.record(each)

    assert log.tally(ONE) == Tally(up=1, down=1)
    assert log.tally(TWO) == Tally(down=1)
    assert log.tally("sha256:" + "3" * 64) == Tally()


def test_since_is_held_against_the_time_of_the_answer(log: FeedbackLog) -> None:
    log.record(record("down", minute=0, received=5))
    log.record(record("up", minute=10, received=1))

    assert log.tally(ONE, START + timedelta(minutes=10)) == Tally(up=1)
    assert log.tally(ONE, START + timedelta(minutes=11)) == Tally()


def test_verdicts_are_told_apart_by_the_steps_of_one_promotion(log: FeedbackLog) -> None:
    early, late = START, START + timedelta(minutes=5)
    for step, minute in ((0, 0), (0, 9), (1, 9)):
        log.record(record("down", step=step_tag("shop-run-2", step), minute=minute))
    log.record(record("up", step=step_tag("shop-run-1", 0), minute=9))  # of another promotion
    log.record(record("up", minute=0))
    log.record(record("up", minute=9))

    assert log.tallies(ONE, "shop-run-2", late) == {0: Tally(down=2), 1: Tally(down=1), None: Tally(up=1)}
    assert log.tallies(ONE, "shop-run-2", early)[None] == Tally(up=2)
    assert log.tallies(ONE, "shop-run-1", late) == {0: Tally(up=1), None: Tally(up=1)}
    assert log.tallies(TWO, "shop-run-2", early) == {}


def test_a_tally_reads_each_document_once(log: FeedbackLog, store: Documents) -> None:
    for minute in range(5):
        log.record(record(minute=minute))
    log.tally(ONE)
    log.record(record(minute=9))

    assert log.tally(ONE) == Tally(up=6)
    assert log.tally(ONE, START + timedelta(minutes=4)) == Tally(up=2)
    assert store.gets == 6


def test_the_list_is_ordered_by_arrival(log: FeedbackLog) -> None:
    for hour in (3, 1, 2):
        log.record(record(received=hour))

    assert [each.received.hour for each in log.list(ONE)] == [1, 2, 3]


def test_control_characters_are_not_kept(log: FeedbackLog) -> None:
    said = Feedback(
        response_id=IDS.issue(ONE, START),
        verdict="down",
        tags=("ru\nde\x00",),
        comment="a\x1b[31m\nb\x85",
        correction="\r夏",
    )
    log.record(FeedbackRecord(digest=ONE, answered=START, received=START, feedback=said))

    (kept,) = log.list(ONE)
    assert (kept.feedback.tags, kept.feedback.comment, kept.feedback.correction) == (("rude",), "a[31m\nb", "夏")


def test_feedback_without_prose_stays_as_it_is() -> None:
    said = Feedback(response_id="x", verdict="up")
    assert without_controls(said) == said


def test_a_damaged_document_is_named(log: FeedbackLog, store: Documents) -> None:
    store.bodies[f".tunegate/feedback/{'1' * 64}/anonymous/x.json"] = b"{}"

    with pytest.raises(StoreError, match=r"x\.json in the store is not feedback"):
        log.tally(ONE)


@pytest.mark.parametrize("digest", ["sha256:12", "../../x", "", "sha256:" + "G" * 64])
def test_only_full_digests_are_taken(log: FeedbackLog, digest: str) -> None:
    with pytest.raises(UsageError, match="not the full digest"):
        log.list(digest)
