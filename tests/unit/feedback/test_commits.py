"""Votes on their way to a real store: a writer that is killed, a store that goes away, and clients that send again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest

from tests.builders import make_vote
from tests.unit.store.conftest import Proxy
from tunegate.api.codec import to_json
from tunegate.api.errors import FeedbackError, StoreError
from tunegate.api.feedback import FeedbackRecord, Tally
from tunegate.feedback import FeedbackLog, VoteWriter
from tunegate.feedback.commits import Commits
from tunegate.store import EmbeddedStore, Store

DIGEST = "sha256:" + "ab" * 32
SERVER = """
import sys
import msgspec
from tunegate.api.feedback import FeedbackRecord
from tunegate.feedback import VoteWriter
from tunegate.feedback.commits import Commits
from tunegate.store import Store
store = Store.at(sys.argv[1], endpoint_url=sys.argv[2])
commits = Commits(VoteWriter(store), lambda record: None)
for line in sys.stdin:
    record = msgspec.json.decode(line, type=FeedbackRecord)
    answer = record.feedback.response_id
    commits.submit(record).add_done_callback(
        lambda done, answer=answer: print(answer, done.result() if not done.exception() else "refused", flush=True)
    )
commits.close()
"""


@contextmanager
def serving(store: Store, votes: list[FeedbackRecord]) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-c", SERVER, store.uri, str(store.endpoint_url)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin
        child.stdin.write("".join(to_json(vote).decode().replace("\n", "") + "\n" for vote in votes))
        child.stdin.close()
        yield child
        child.kill()


def test_a_killed_server_has_lost_nothing_that_it_acknowledged_and_nothing_counts_twice(store: Store) -> None:
    votes = [make_vote(DIGEST, "up" if number % 3 else "down") for number in range(3000)]
    with serving(store, votes) as child:
        assert child.stdout
        acknowledged = {child.stdout.readline().split()[0] for _ in range(700)}
        child.kill()
        acknowledged |= {line.split()[0] for line in child.stdout if line.endswith("\n")}
    kept = {record.feedback.response_id for record in FeedbackLog(store).list(DIGEST)}
    assert len(acknowledged) >= 700
    assert acknowledged <= kept

    with serving(store, votes) as child:  # all clients send again, also those that had their answer
        assert child.stdout
        said = [line.split() for line in child.stdout]
    assert {outcome for _, outcome in said} == {"counted"}
    assert FeedbackLog(store).tally(DIGEST) == Tally(up=2000, down=1000)


def test_while_the_store_is_away_votes_are_refused_and_what_is_sent_again_counts_once(
    store: Store, embedded_store: EmbeddedStore
) -> None:
    port = int(embedded_store.endpoint_url.rpartition(":")[2])
    proxy, cut = Proxy(port), [False]
    proxy.cut = lambda _: cut[0]
    commits = Commits(VoteWriter(Store.open(store.uri, endpoint_url=proxy.url)), lambda record: None)
    votes = [make_vote(DIGEST, "up") for _ in range(30)]
    assert commits.submit(votes[0]).result(100) == "counted"

    cut[0] = True
    waiting = [commits.submit(vote) for vote in votes]
    outcomes = [future.exception(200) or future.result() for future in waiting]
    assert outcomes[0] == "repeat"
    assert all(isinstance(outcome, StoreError) for outcome in outcomes[1:])

    cut[0] = False
    assert [commits.submit(vote).result(100) for vote in votes] == ["repeat"] + ["counted"] * 29
    commits.close()
    proxy.close()
    assert FeedbackLog(store).tally(DIGEST) == Tally(up=30)
    with pytest.raises(FeedbackError, match="Too many votes wait"):
        commits.submit(votes[0])


def test_a_vote_that_breaks_the_writer_is_refused_and_the_next_one_is_written(store: Store) -> None:
    """Whatever it breaks by: a thread that ended would keep every later vote waiting for ever."""
    commits = Commits(VoteWriter(store), lambda record: None)
    broken = msgspec.structs.replace(make_vote(DIGEST, "up"), answered="never")
    assert isinstance(commits.submit(broken).exception(100), StoreError)
    assert commits.submit(make_vote(DIGEST, "up")).result(100) == "counted"
    commits.close()


def test_a_vote_is_counted_before_it_is_acknowledged(store: Store) -> None:
    """Whoever hears that it was accepted finds it in the metrics."""
    known, seen = list[str](), list[list[str]]()
    commits = Commits(VoteWriter(store), lambda record: known.append(record.feedback.response_id))
    vote = make_vote(DIGEST)
    commits.submit(vote).add_done_callback(lambda _: seen.append(list(known)))
    commits.close()
    assert seen == [[vote.feedback.response_id]]
