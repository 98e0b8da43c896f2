"""What feedback is refused for, it is taken without once the message's words were followed."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.builders import at, make_vote
from tests.refusals import call, refused, without_story
from tunegate.api.feedback import FeedbackRecord, Tally
from tunegate.feedback import FeedbackLog, ResponseIds, VoteWriter, commits
from tunegate.feedback.commits import Commits
from tunegate.feedback.export import write_parquet
from tunegate.feedback.ids import parse_keys
from tunegate.feedback.segments import Segment
from tunegate.store import Store

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("words", "key"), [("is not set, so answers can't be signed; make one with: ", None), ("must be at least 64", "ab")]
)
def test_a_key_is_made_by_the_command_that_the_message_names(words: str, key: str | None) -> None:
    with refused(words) as caught:
        parse_keys(key)
    _, *arguments = shlex.split(str(caught.value).partition("make one with: ")[2])
    made = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True).stdout
    assert [len(key) for key in parse_keys(made.strip())] == [32]


def test_an_id_is_taken_as_it_was_given() -> None:
    ids = ResponseIds(bytes(32), "shop")
    given = ids.issue(DIGEST, at(0))
    with refused("This is not a response id; send the `id` of an answer just as it was given"):
        ids.read(given[:-1])
    with refused("was not issued here, or its key is known no more; send the id of an answer of today just as it was"):
        ResponseIds(b"another key" * 3, "shop").read(given)
    assert ids.read(given).digest == DIGEST


def test_a_document_that_is_damaged_is_deleted(store: Store) -> None:
    VoteWriter(store).write([vote()])
    store.put(f".tunegate/feedback/{DIGEST.partition(':')[2]}/anonymous/chatcmpl-1.json", b"{")
    with refused("If it is damaged, delete it") as caught:
        FeedbackLog(store).tally(DIGEST)
    (named,) = re.findall(r"(\S+) in the store is not feedback", str(caught.value))
    store.delete(named)
    assert FeedbackLog(store).tally(DIGEST) == Tally(up=1)


def vote() -> FeedbackRecord:
    return make_vote(DIGEST, "up")


def test_a_segment_that_is_cut_is_mended_by_the_command_that_the_message_names(store: Store) -> None:
    VoteWriter(store).write([vote() for _ in range(20)])
    (key,) = store.keys(".tunegate/votes/")
    body = store.get(key)
    assert body
    store.put(key, body[: len(body) // 2])
    with refused("votes; restore it from a backup, or keep these alone with: tunegate feedback mend ") as caught:
        FeedbackLog(store).tally(DIGEST)
    words = shlex.split(str(caught.value).partition("keep these alone with: ")[2])
    assert "votes are whole and stay" in call(*words[1:])
    assert 0 < FeedbackLog(store).tally(DIGEST).up < 20
    with refused("is no segment of votes; give the key as the message about it has it"):
        FeedbackLog(store).mend("manifest.json")


def test_a_segment_that_is_something_else_is_deleted(store: Store) -> None:
    VoteWriter(store).write([vote()])
    (key,) = store.keys(".tunegate/votes/")
    store.put(key, Segment().with_lines([b"{}"]).to_bytes())
    with refused("in the store is not a log of votes"):
        FeedbackLog(store).tally(DIGEST)
    store.delete(key)
    assert FeedbackLog(store).tally(DIGEST) == Tally()


def test_parquet_needs_the_extra_that_the_message_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.parquet"
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pyarrow", None)
        with refused('Parquet files need pyarrow; install it with: pip install "tunegate[parquet]"'):
            write_parquet([], path)
    pytest.importorskip("pyarrow")
    assert write_parquet([], path) == 0


def test_a_vote_that_finds_too_many_waiting_is_sent_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, gate, begun = VoteWriter(store), threading.Event(), threading.Event()
    put = store.put

    def slow(key: str, body: bytes) -> None:
        begun.set()
        gate.wait(100)
        put(key, body)

    monkeypatch.setattr(store, "put", slow)
    monkeypatch.setattr(commits, "_MOST_WAITING", 2)
    waiting = Commits(writer, lambda record: None)
    sent = [waiting.submit(vote())]
    assert begun.wait(100)
    sent += [waiting.submit(vote()), waiting.submit(vote())]
    with refused("Too many votes wait for the store; send it again in a moment"):
        waiting.submit(vote())
    gate.set()
    assert [each.result(100) for each in sent] == ["counted"] * 3
    assert waiting.submit(vote()).result(100) == "counted"
    waiting.close()


def test_a_vote_that_was_written_in_vain_is_sent_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put, failed = store.put, list[str]()

    def broken_once(key: str, body: bytes) -> None:
        if not failed:
            failed.append(key)
            raise RuntimeError("can't start new thread")
        put(key, body)

    monkeypatch.setattr(store, "put", broken_once)
    writing, one = Commits(VoteWriter(store), lambda record: None), vote()
    with refused("The votes were not written: …; send them again, and see the server's log"):
        writing.submit(one).result(100)
    assert writing.submit(one).result(100) == "counted"
    writing.close()


def test_every_message_has_its_story() -> None:
    assert without_story("feedback", Path(__file__)) == []
