from __future__ import annotations

import json
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.answering import listening
from tests.unit.serving.conftest import admission, documents, engine, limits, origins, parts, server
from tests.unit.serving.standin import DIGEST, KEY, MODEL, Server, now
from tunegate.api.feedback import Feedback, FeedbackRecord
from tunegate.api.versions import Producer, Release
from tunegate.cli import main
from tunegate.feedback import FeedbackLog, ResponseIds, VoteWriter
from tunegate.feedback.export import trace_id
from tunegate.feedback.interactions import FOLDER, Content, Interaction
from tunegate.feedback.segments import Segment, segment_key
from tunegate.store import Store

__all__ = ["admission", "documents", "engine", "limits", "origins", "parts", "server"]


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
    assert "said before" in capsys.readouterr().out
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


def answered(store: Store, day: int = 1) -> Interaction:
    at = datetime(2026, 1, day, 2, 3, tzinfo=UTC)
    answer = Interaction(
        id=ResponseIds(KEY, MODEL).issue(DIGEST, at),
        model=MODEL,
        digest=DIGEST,
        answered=at,
        finish="stop",
        seconds=1.0,
        content=Content(answer="Blue."),
    )
    key = segment_key(FOLDER, at.date(), "a" * 12, 0)
    store.put(key, Segment().with_lines([msgspec.json.encode(answer)]).to_bytes())
    said = Feedback(response_id=answer.id, verdict="down")
    VoteWriter(store).write([FeedbackRecord(digest=DIGEST, answered=at, received=at, feedback=said)])
    return answer


@pytest.mark.parametrize("form", ["jsonl", "opentelemetry", "langfuse"])
def test_the_logs_are_exported(store: Store, tmp_path: Path, form: str, capfdbinary: Any) -> None:
    answers = [answered(store, day) for day in (1, 2)]
    assert run("export", "--format", form, "--since", "2026-01-02") == 0
    shown = capfdbinary.readouterr()
    assert run("export", "--format", form, "--since", "2026-01-02", "--output", str(tmp_path / "log")) == 0
    assert (tmp_path / "log").read_bytes() == shown.out
    assert shown.err == b"1 written.\n"
    text = shown.out.decode()
    assert (trace_id(answers[1].id) if form == "langfuse" else answers[1].id) in text
    assert answers[0].id not in text


def test_the_logs_are_exported_as_parquet(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    answer = answered(store)
    assert run("export", "--format", "parquet") == 2
    assert "give it a name with --output" in capsys.readouterr().err
    assert run("export", "--format", "parquet", "--output", str(tmp_path / "log.parquet")) == 0
    assert parquet.read_table(tmp_path / "log.parquet").to_pylist()[0]["id"] == answer.id
    assert run("export", "--output", str(tmp_path / "none" / "log")) == 2
    assert "choose another --output" in capsys.readouterr().err


def test_a_segment_that_is_cut_is_named_and_its_rest_is_exported(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    answered(store)
    (key,) = store.keys(f"{FOLDER}/")
    body = store.get(key)
    assert body
    store.put(key, body[:-4])
    assert run("export") == 0
    assert f"{key} in the store is cut; what is whole of it was read." in capsys.readouterr().err


def test_days_that_are_old_are_deleted(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    answered(store)
    assert run("expire") == 2
    assert "give --answers-days, --votes-days or both" in capsys.readouterr().err
    assert run("expire", "--answers-days", "30", "--votes-days", "30", "--dry-run") == 0
    assert "2 objects would be deleted." in capsys.readouterr().out
    assert run("expire", "--answers-days", "30") == 0
    assert "1 objects were deleted." in capsys.readouterr().out
    assert [key.split("/")[1] for key in store.keys(".tunegate/") if key.endswith(".gz")] == ["votes"]
    assert run("expire", "--votes-days", "30") == 0
    assert [key for key in store.keys(".tunegate/") if key.endswith(".gz")] == []


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


class Cut(BaseHTTPRequestHandler):
    """Ends within its answer."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "100")
        self.end_headers()
        self.wfile.write(b'{"status"')

    def log_message(self, *_: object) -> None:
        pass


def test_a_server_that_ends_within_its_answer_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with listening(Cut) as url, pytest.raises(SystemExit):
        main(["feedback", "send", "response-1", "up", "--url", url])

    assert (
        "can't be reached (IncompleteRead(9 bytes read, 91 more expected)); start the server" in capsys.readouterr().err
    )
