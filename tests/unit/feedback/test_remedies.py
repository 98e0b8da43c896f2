"""What feedback is refused for, it is taken without once the message's words were followed."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders import at
from tests.refusals import refused, without_story
from tunegate.api.feedback import Feedback, FeedbackRecord, Tally
from tunegate.feedback import FeedbackLog, ResponseIds
from tunegate.feedback.ids import parse_key
from tunegate.store import Store

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("words", "key"), [("is not set, so answers can't be signed; make one with: ", None), ("must be at least 64", "ab")]
)
def test_a_key_is_made_by_the_command_that_the_message_names(words: str, key: str | None) -> None:
    with refused(words) as caught:
        parse_key(key)
    _, *arguments = shlex.split(str(caught.value).partition("make one with: ")[2])
    made = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True).stdout
    assert len(parse_key(made.strip())) == 32


def test_an_id_is_taken_as_it_was_given() -> None:
    ids = ResponseIds(bytes(32), "shop")
    given = ids.issue(DIGEST, at(0))
    with refused("This is not a response id; send the `id` of an answer just as it was given"):
        ids.read(given[:-1])
    with refused("was not issued here; send the id of an answer just as it was given"):
        ResponseIds(b"another key" * 3, "shop").read(given)
    assert ids.read(given).digest == DIGEST


def test_a_document_that_is_damaged_is_deleted(store: Store) -> None:
    log = FeedbackLog(store)
    answer = ResponseIds(bytes(32), "shop").issue(DIGEST, at(0))
    feedback = Feedback(response_id=answer, verdict="up")
    log.record(FeedbackRecord(digest=DIGEST, answered=at(0), received=at(1), feedback=feedback))
    (key,) = store.keys(".tunegate/feedback/")
    store.put(key.replace("chatcmpl", "damaged"), b"{")
    with refused("If it is damaged, delete it") as caught:
        FeedbackLog(store).tally(DIGEST)
    (named,) = re.findall(r"(\S+) in the store is not feedback", str(caught.value))
    store.delete(named)
    assert FeedbackLog(store).tally(DIGEST) == Tally(up=1)


def test_every_message_has_its_story() -> None:
    assert without_story("feedback", Path(__file__)) == []
