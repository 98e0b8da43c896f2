from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from tests.documents import Documents
from tunegate.api.codec import from_json, to_json
from tunegate.api.errors import StoreError, UsageError
from tunegate.api.feedback import Feedback, FeedbackRecord, Struck, Tally, Verdict, step_tag
from tunegate.feedback import FeedbackLog, ResponseIds, VoteWriter, struck
from tunegate.feedback.segments import read_lines
from tunegate.feedback.votes import without_controls

IDS = ResponseIds(bytes(32), "m")
ONE, TWO = "sha256:" + "1" * 64, "sha256:" + "2" * 64
START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def store() -> Documents:
    return Documents()


@pytest.fixture
def log(store: Documents) -> FeedbackLog:
    return FeedbackLog(store)


@pytest.fixture
def writer(store: Documents) -> VoteWriter:
    return VoteWriter(store)


def record(
    verdict: Verdict = "up",
    *,
    digest: str = ONE,
    minute: int = 0,
    received: int = 0,
    step: str | None = None,
    user: str | None = None,
) -> FeedbackRecord:
    answered = START + timedelta(minutes=minute)
    feedback = Feedback(response_id=IDS.issue(digest, answered), verdict=verdict)
    return FeedbackRecord(
        digest=digest,
        step=step,
        user=user,
        answered=answered,
        received=START + timedelta(hours=received),
        feedback=feedback,
    )


def said_again(first: FeedbackRecord, verdict: Verdict, hours: float, **besides: Any) -> FeedbackRecord:
    feedback = Feedback(response_id=first.feedback.response_id, verdict=verdict, **besides)
    return msgspec.structs.replace(first, feedback=feedback, received=first.received + timedelta(hours=hours))


def test_the_last_verdict_in_time_counts_and_all_are_in_the_log(
    log: FeedbackLog, store: Documents, writer: VoteWriter
) -> None:
    first = record("up")

    assert writer.write([first]) == ["counted"]
    assert writer.write([said_again(first, "down", 0.1, comment="No.")]) == ["amended"]
    assert log.tally(ONE) == Tally(down=1)
    assert writer.write([said_again(first, "up", 0.2), said_again(first, "down", 0.3)]) == ["late", "repeat"]
    assert log.tally(ONE) == Tally(down=1)
    lines = [line for body in store.bodies.values() for line in read_lines(body)[0]]
    assert [from_json(line, FeedbackRecord, "").feedback.verdict for line in lines] == ["up", "down"]


def test_the_last_verdict_in_time_counts_whichever_servers_heard_of_it(log: FeedbackLog, store: Documents) -> None:
    """The first server has heard nothing of what the second one was told."""
    first, one, other = record("up"), VoteWriter(store), VoteWriter(store)
    assert one.write([first]) == ["counted"]
    assert other.write([said_again(first, "down", 0.05)]) == ["counted"]
    assert one.write([said_again(first, "up", 0.1)]) == ["repeat"]
    assert log.tally(ONE) == Tally(up=1)
    (said,) = log.list(ONE)
    assert said.feedback.verdict == "up"


def test_a_verdict_that_comes_too_late_is_refused_by_servers_that_never_heard_the_first(
    log: FeedbackLog, store: Documents
) -> None:
    first = record("up")
    assert VoteWriter(store).write([first]) == ["counted"]
    other = VoteWriter(store)
    assert other.write([said_again(first, "down", 1)]) == ["late"]
    assert other.write([said_again(first, "up", 1, comment="It is blue.")]) == ["amended"]
    assert other.write([said_again(first, "up", 1)]) == ["repeat"]
    assert log.tally(ONE) == Tally(up=1)


def test_the_first_vote_of_all_servers_says_what_is_in_time(log: FeedbackLog, store: Documents) -> None:
    first, one, other = record("up"), VoteWriter(store), VoteWriter(store)
    assert one.write([first]) == ["counted"]
    assert other.write([said_again(first, "up", 0.1)]) == ["counted"], "the answer is too young for one to be late"
    assert other.write([said_again(first, "down", 0.2)]) == ["late"]
    assert log.tally(ONE) == Tally(up=1)


def test_the_log_is_read_once_for_answers_of_long_ago_and_not_at_all_for_new_ones(store: Documents) -> None:
    other, writer = VoteWriter(store), VoteWriter(store)
    other.write([record("up") for _ in range(5)])
    store.gets = 0
    assert writer.write([record("up")]) == ["counted"]
    assert store.gets == 0
    assert writer.write([record("up", received=1)]) == ["counted"]
    assert store.gets == 2, "the segment of each writer"
    assert writer.write([record("up", received=1)]) == ["counted"]
    assert store.gets == 3, "only its own has changed since"


def test_a_late_vote_is_not_taken_while_the_log_cannot_be_read() -> None:
    first = record("up")

    class Unlisted(Documents):
        def entries(self, prefix: str) -> list[Any]:
            raise StoreError("away")

    other = VoteWriter(Unlisted())
    (outcome, accepted) = other.write([said_again(first, "down", 1), record("up", minute=24 * 60, received=24)])
    assert isinstance(outcome, StoreError)
    assert accepted == "counted", "of another day, and too young to be late"


def test_what_is_added_later_is_kept_with_the_verdict(log: FeedbackLog, writer: VoteWriter) -> None:
    first = record("down")
    later = [
        said_again(first, "down", 0, tags=("wrong",)),
        said_again(first, "down", 9, comment="It is blue."),
        said_again(first, "down", 9, comment="It is blue."),
        said_again(first, "down", 10),
        said_again(first, "up", 11, comment="Never mind."),
    ]
    assert writer.write([first, *later]) == ["counted", "amended", "amended", "repeat", "repeat", "late"]
    (said,) = (each.feedback for each in log.list(ONE))
    assert (said.verdict, said.tags, said.comment) == ("down", ("wrong",), "It is blue.")


def test_another_verdict_stands_for_all_that_was_said_before(log: FeedbackLog, writer: VoteWriter) -> None:
    first = msgspec.structs.replace(record("up"))
    first = said_again(first, "up", 0, rating=5, comment="Good.")
    writer.write([first, said_again(first, "down", 0.1, comment="Not at all.")])
    (said,) = (each.feedback for each in log.list(ONE))
    assert (said.verdict, said.rating, said.comment) == ("down", None, "Not at all.")


def test_of_one_answer_several_at_once_are_one(log: FeedbackLog, writer: VoteWriter) -> None:
    first = record("up")
    assert writer.write([first, said_again(first, "up", 0), record("down")]) == ["counted", "repeat", "counted"]
    assert log.tally(ONE) == Tally(up=1, down=1)


def test_a_repeat_of_what_the_store_refused_is_refused_too(store: Documents, writer: VoteWriter) -> None:
    store.failure = StoreError("The store is away.")
    first = record("up")
    assert all(isinstance(each, StoreError) for each in writer.write([first, said_again(first, "up", 0)]))
    store.failure = None
    assert writer.write([said_again(first, "up", 0)]) == ["counted"]


@pytest.mark.parametrize("earlier", [0, 1])
def test_what_two_servers_kept_counts_once_as_it_was_first_received(
    log: FeedbackLog, store: Documents, earlier: int
) -> None:
    first = record("up")
    said = [first, said_again(first, "down", 1)]
    for each in (said[earlier], said[1 - earlier]):
        alone = Documents()  # neither sees what the other writes at the same moment
        assert VoteWriter(alone).write([each]) == ["counted"]
        store.bodies |= alone.bodies
    assert log.tally(ONE) == Tally(up=1)
    assert [each.feedback.verdict for each in log.list(ONE)] == ["up"]


def test_a_segment_is_of_one_version_day_and_writer(store: Documents) -> None:
    for letter in "ab":
        writer = VoteWriter(store, letter * 12)
        writer.write([record(), record(minute=24 * 60), record(digest=TWO)])

    one, two = f".tunegate/votes/{'1' * 64}", f".tunegate/votes/{'2' * 64}"
    days = (f"{one}/2026-01-01", f"{one}/2026-01-02", f"{two}/2026-01-01")
    assert sorted(store.bodies) == [f"{day}/{letter * 12}-000000.jsonl.gz" for day in days for letter in "ab"]


def test_votes_that_come_one_by_one_share_segments(log: FeedbackLog, store: Documents, writer: VoteWriter) -> None:
    for _ in range(4500):
        writer.write([record("down")])
    assert len(store.bodies) == 3
    assert log.tally(ONE) == Tally(down=4500)


def test_what_the_store_refused_is_not_in_the_log_and_may_be_sent_again(
    log: FeedbackLog, store: Documents, writer: VoteWriter
) -> None:
    refused = record("down")
    writer.write([record("up")])
    store.failure = StoreError("The store is away.")
    (outcome,) = writer.write([refused])
    assert isinstance(outcome, StoreError)

    store.failure = None
    writer.write([record("up")])
    assert log.tally(ONE) == Tally(up=2)
    assert writer.write([refused]) == ["counted"]
    assert log.tally(ONE) == Tally(up=2, down=1)


def test_of_one_user_the_first_three_count_and_all_are_kept(log: FeedbackLog, writer: VoteWriter) -> None:
    said = [record("up" if hour < 3 else "down", received=hour, user="anna") for hour in range(5)]

    assert writer.write(said) == ["counted"] * 3 + ["kept"] * 2
    assert writer.write([record("down", user="ben")]) == ["counted"]
    assert log.tally(ONE) == Tally(up=3, down=1)
    assert len(log.list(ONE)) == 6


def test_servers_and_the_log_count_the_same_of_a_user(log: FeedbackLog, writer: VoteWriter) -> None:
    """Of one day within one promotion, whatever the step, and whatever span is asked for."""
    tags = [None, step_tag("shop-run-1", 0), step_tag("shop-run-1", 1), step_tag("shop-run-2", 0)]
    said = [record(minute=turn, received=turn, user="anna", step=tags[turn % 4]) for turn in range(24)]
    outcomes = zip(said, writer.write(said), strict=True)
    counted = [each.step for each, outcome in outcomes if outcome == "counted"]

    assert len(counted) == 9
    for promotion, steps in (("shop-run-1", (0, 1)), ("shop-run-2", (0,))):
        expected = {step: counted.count(step_tag(promotion, step)) for step in steps}
        tallies = log.tallies(ONE, promotion, START)
        assert {step: tally.n for step, tally in tallies.items()} == {**expected, None: 3}
    assert log.tally(ONE, START + timedelta(minutes=20)) == Tally()


def test_all_verdicts_of_unnamed_users_count(log: FeedbackLog, writer: VoteWriter) -> None:
    assert writer.write([record("down") for _ in range(5)]) == ["counted"] * 5
    assert log.tally(ONE) == Tally(down=5)


def test_versions_are_counted_apart(log: FeedbackLog, writer: VoteWriter) -> None:
    writer.write([record("up"), record("down"), record("down", digest=TWO)])

    assert log.tally(ONE) == Tally(up=1, down=1)
    assert log.tally(TWO) == Tally(down=1)
    assert log.tally("sha256:" + "3" * 64) == Tally()


def test_since_is_held_against_the_time_of_the_answer(log: FeedbackLog, writer: VoteWriter) -> None:
    writer.write([record("down", minute=0, received=5), record("up", minute=10, received=1)])

    assert log.tally(ONE, START + timedelta(minutes=10)) == Tally(up=1)
    assert log.tally(ONE, START + timedelta(minutes=11)) == Tally()


def test_votes_on_answers_that_were_struck_count_for_nobody_and_take_nobodys_share(
    log: FeedbackLog, store: Documents, writer: VoteWriter
) -> None:
    writer.write([record("down", minute=minute, user="ada") for minute in (10, 11, 12)])
    writer.write([record("up", minute=30, user="ada"), record("down", digest=TWO, minute=10)])
    since, until = START + timedelta(minutes=10), START + timedelta(minutes=20)
    struck.write(store, Struck(digest=ONE, since=since, until=until, reason="Other weights answered."))
    assert log.tally(ONE) == Tally(up=1)
    assert log.tallies(ONE, "p", START) == {None: Tally(up=1)}
    assert log.tally(TWO) == Tally(down=1)
    assert [log.struck(ONE, START), log.struck(ONE, START + timedelta(hours=1)), log.struck(TWO, START)] == [
        "Other weights answered.",
        "",
        "",
    ]


def test_verdicts_are_told_apart_by_the_steps_of_one_promotion(log: FeedbackLog, writer: VoteWriter) -> None:
    early, late = START, START + timedelta(minutes=5)
    steps = [record("down", step=step_tag("shop-run-2", at), minute=minute) for at, minute in ((0, 0), (0, 9), (1, 9))]
    other = record("up", step=step_tag("shop-run-1", 0), minute=9)
    writer.write([*steps, other, record("up", minute=0), record("up", minute=9)])

    assert log.tallies(ONE, "shop-run-2", late) == {0: Tally(down=2), 1: Tally(down=1), None: Tally(up=1)}
    assert log.tallies(ONE, "shop-run-2", early)[None] == Tally(up=2)
    assert log.tallies(ONE, "shop-run-1", late) == {0: Tally(up=1), None: Tally(up=1)}
    assert log.tallies(TWO, "shop-run-2", early) == {}


def test_a_tally_reads_what_is_new_and_no_more(log: FeedbackLog, store: Documents, writer: VoteWriter) -> None:
    for _ in range(3):
        VoteWriter(store).write([record(), record()])
    assert log.tally(ONE) == Tally(up=6)
    writer.write([record(minute=9)])
    assert log.tally(ONE) == Tally(up=7)
    writer.write([record(minute=9)])

    assert log.tally(ONE, START + timedelta(minutes=4)) == Tally(up=2)
    assert store.gets == 3 + 1 + 1


def test_answers_of_earlier_days_are_not_even_read(log: FeedbackLog, store: Documents, writer: VoteWriter) -> None:
    days = [record(minute=24 * 60 * day, received=day) for day in range(9)]
    writer.write(days)
    assert log.tally(ONE, days[6].answered) == Tally(up=3)
    assert store.gets == 4  # and the day before, as clocks differ


def test_a_clock_that_is_hours_off_loses_no_vote_of_a_step(log: FeedbackLog, writer: VoteWriter) -> None:
    writer.write([record("down", step=step_tag("shop-run-1", 0), minute=0)])
    assert log.tallies(ONE, "shop-run-1", START + timedelta(hours=23)) == {0: Tally(down=1)}


def test_a_segment_that_is_cut_decides_nothing_until_it_is_mended(
    log: FeedbackLog, store: Documents, writer: VoteWriter
) -> None:
    writer.write([record("down") for _ in range(50)])
    ((key, body),) = store.bodies.items()
    store.bodies[key] = body[: len(body) // 2]

    with pytest.raises(StoreError, match=rf"{key} in the store is cut after \d+ votes; .* mend {key}"):
        log.tally(ONE)
    kept = log.mend(key)
    assert 0 < kept < 50
    assert log.tally(ONE) == Tally(down=kept)


def test_segments_that_are_deleted_while_they_are_counted_have_no_votes(
    log: FeedbackLog, store: Documents, writer: VoteWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.write([record("down")])
    entries = store.entries("")
    monkeypatch.setattr(store, "folders", lambda prefix: ["2026-01-01"])
    monkeypatch.setattr(store, "entries", lambda prefix: entries if "votes" in prefix else [])
    store.bodies.clear()
    assert log.tally(ONE) == Tally()


def test_the_documents_of_0_1_0_count_beside(log: FeedbackLog, store: Documents, writer: VoteWriter) -> None:
    for number in range(5):
        old = record("down", received=number)
        key = f".tunegate/feedback/{'1' * 64}/anna/{old.feedback.response_id}.json"
        store.bodies[key] = to_json(old)
    writer.write([record("up", received=9, user="anna"), record("up", received=9)])

    assert log.tally(ONE) == Tally(up=1, down=3)
    assert {each.user for each in log.list(ONE)} == {"anna", None}


def test_the_list_is_ordered_by_arrival(log: FeedbackLog, writer: VoteWriter) -> None:
    writer.write([record(received=hour) for hour in (3, 1, 2)])

    assert [each.received.hour for each in log.list(ONE)] == [1, 2, 3]


def test_control_characters_are_not_kept(log: FeedbackLog, writer: VoteWriter) -> None:
    said = Feedback(
        response_id=IDS.issue(ONE, START),
        verdict="down",
        tags=("ru\nde\x00",),
        comment="a\x1b[31m\nb\x85",
        correction="\r夏",
    )
    writer.write([FeedbackRecord(digest=ONE, answered=START, received=START, feedback=said)])

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


def test_marks_that_are_longer_than_what_they_stand_for_make_no_line_that_can_not_be_read(
    store: Documents, log: FeedbackLog, writer: VoteWriter
) -> None:
    """One such line would keep all votes beside it from being listed."""
    mails = "a@b.cd " * 600
    said = record()
    feedback = msgspec.structs.replace(said.feedback, comment=mails[:4000], correction=mails[:4000], tags=(mails[:64],))
    writer.write([msgspec.structs.replace(said, feedback=feedback), record(minute=1)])
    assert len(log.list(ONE)) == 2
    assert "a@b.cd" not in str(log.list(ONE))


def test_what_somebody_else_put_beside_the_days_is_passed_over(
    store: Documents, log: FeedbackLog, writer: VoteWriter
) -> None:
    writer.write([record()])
    store.put(f".tunegate/votes/{'1' * 64}/copies/a.jsonl.gz", b"a copy")
    assert log.tally(ONE) == Tally(up=1)
    assert log.days() == [START.date()]
