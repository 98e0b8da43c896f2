from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.unit.serving.conftest import admission, documents, engine, limits, server
from tests.unit.serving.standin import DIGEST, KEY, MODEL, Server, now
from tunegate.api.feedback import Feedback, FeedbackRecord
from tunegate.api.versions import Producer, Release
from tunegate.cli import main
from tunegate.feedback import FeedbackLog, ResponseIds, VoteWriter
from tunegate.store import Store

__all__ = ["admission", "documents", "engine", "limits", "server"]


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["feedback", *words])
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize("base", ["", "/", "/v1", "/openai/v1/"])
def test_a_verdict_is_sent_once(server: Server, base: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("send", server.ids.issue(DIGEST, now()), "down", "--url", server.url + base)

    assert run(*words, "--rating", "1", "--tag", "wrong", "--tag", "rude", "--comment", "No.") == 0
    assert capsys.readouterr().out == "Accepted.\n"
    assert run(*words) == 0
    assert "judged before" in capsys.readouterr().out
    (record,) = FeedbackLog(server.store).list(DIGEST)
    assert (record.feedback.rating, record.feedback.tags, record.feedback.comment) == (1, ("wrong", "rude"), "No.")


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["chatcmpl-1", "up"], 1, "not a response id"),
        (["x" * 600, "up"], 2, "response_id"),
        (["x", "sideways"], 2, "sideways"),
        (["x", "up", "--rating", "9"], 2, "9"),
        (["x", "up", "--url", "localhost"], 2, "http://HOST:PORT"),
        (["x", "up", "--url", "http://127.0.0.1:9"], 1, "start the server"),
    ],
)
def test_what_can_not_be_sent_is_refused(
    server: Server, words: list[str], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    url = [] if "--url" in words else ["--url", server.url]

    assert run("send", *words, *url) == status
    assert message in capsys.readouterr().err


def test_feedback_is_listed(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    name = f"{MODEL}/base/checkpoint-0"
    release = Release(format="huggingface")
    version = store.publish(tmp_path / "model", name, release=release, producer=Producer(kind="test"))
    answered = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    feedback = Feedback(
        response_id=ResponseIds(KEY, MODEL).issue(version.digest, answered), verdict="down", comment="[b]x"
    )
    record = FeedbackRecord(digest=version.digest, answered=answered, received=answered, feedback=feedback)
    VoteWriter(store).write([record])

    assert run("list", name) == 0
    table = capsys.readouterr().out
    assert "0 up, 1 down" in " ".join(table.split())
    assert "[b]x" in table
    assert run("list", version.digest, "--json") == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert listed["feedback"]["comment"] == "[b]x"
