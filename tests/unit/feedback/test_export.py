"""What is exported is read by those whom it is for: OpenTelemetry's and Langfuse's own types, and Parquet."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from google.protobuf import json_format
from langfuse.api.core.pydantic_utilities import parse_obj_as
from langfuse.api.scores.types.create_score_request import CreateScoreRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes

from tests.builders import at, make_vote
from tests.documents import Documents
from tunegate.api.feedback import Feedback, FeedbackRecord
from tunegate.feedback import VoteWriter
from tunegate.feedback.export import to_langfuse, to_opentelemetry, trace_id, write_parquet
from tunegate.feedback.history import judged
from tunegate.feedback.interactions import FOLDER, Content, Interaction, Judged, ReleaseParts
from tunegate.feedback.segments import Segment, segment_key

DIGEST = "sha256:" + "ab" * 32
VOTE = make_vote(DIGEST, "down", user="0a1b2c3d4e5f")
SAID = Feedback(
    response_id=VOTE.feedback.response_id,
    verdict="down",
    rating=2,
    tags=("wrong",),
    comment="太贵",
    correction="128元",
)
VOTE = msgspec.structs.replace(VOTE, feedback=SAID)
ANSWER = Interaction(
    id=SAID.response_id,
    model="shop",
    digest=DIGEST,
    release=ReleaseParts(knowledge=DIGEST),
    user="0a1b2c3d4e5f",
    conversation="c0ffee",
    answered=at(0.25),
    finish="stop",
    prompt_template="knowledge-zh.md@sha256:1",
    input_tokens=52,
    output_tokens=18,
    first_text_seconds=0.21,
    seconds=1.5,
    tools={"calculator": 2},
    sources=1,
    content=Content(messages=({"role": "user", "content": "多少钱？"},), answer="138元"),
)


def span(interaction: Interaction, vote: FeedbackRecord | None) -> Any:
    (line,) = to_opentelemetry(Judged(interaction=interaction, vote=vote))
    request = json_format.Parse(line, ExportTraceServiceRequest())
    (found,) = request.resource_spans[0].scope_spans[0].spans
    return found


def attributes(listed: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in listed}


def test_a_span_is_what_opentelemetry_reads_by_the_conventions_for_genai() -> None:
    found = span(ANSWER, VOTE)
    said = attributes(found.attributes)
    known = {value for name, value in vars(gen_ai_attributes).items() if name.startswith("GEN_AI_")}

    # its id in JSON is hexadecimal, which protobuf's own reader takes for base64
    assert found.name == "chat shop"
    assert found.start_time_unix_nano == round(at(0.25).timestamp() * 100) * 10**7
    assert found.end_time_unix_nano - found.start_time_unix_nano == 1_500_000_000
    assert {name for name in said if name.startswith("gen_ai.")} <= known
    assert said["gen_ai.response.id"] == ANSWER.id
    assert (said["gen_ai.usage.input_tokens"], said["gen_ai.usage.output_tokens"]) == (52, 18)
    assert said["gen_ai.response.finish_reasons"].values[0].string_value == "stop"
    assert json.loads(said["gen_ai.input.messages"]) == [
        {"role": "user", "parts": [{"type": "text", "content": "多少钱？"}]}
    ]
    assert json.loads(said["gen_ai.output.messages"])[0]["finish_reason"] == "stop"
    verdict, rating = (attributes(event.attributes) for event in found.events)
    assert {event.name for event in found.events} == {"gen_ai.evaluation.result"}
    assert (verdict["gen_ai.evaluation.name"], verdict["gen_ai.evaluation.score.label"]) == ("user.verdict", "down")
    assert verdict["gen_ai.evaluation.explanation"] == "太贵"
    assert rating["gen_ai.evaluation.score.value"] == 2.0
    assert {*verdict, *rating} <= known


def test_without_content_and_vote_a_span_has_numbers_alone() -> None:
    found = span(msgspec.structs.replace(ANSWER, content=None, finish="engine"), None)
    said = attributes(found.attributes)
    assert not [name for name in said if "messages" in name]
    assert (found.status.code, said["error.type"], len(found.events)) == (2, "engine", 0)


def test_ids_are_hexadecimal_as_otlp_has_them_and_the_same_each_time() -> None:
    lines = [next(to_opentelemetry(Judged(interaction=ANSWER, vote=None))) for _ in range(2)]
    (found,) = json.loads(lines[0])["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert lines[0] == lines[1]
    assert (len(found["traceId"]), len(found["spanId"])) == (32, 16)
    assert bytes.fromhex(found["traceId"])


def test_scores_are_what_langfuse_takes_and_find_the_trace() -> None:
    lines = [json.loads(line) for line in to_langfuse(Judged(interaction=None, vote=VOTE))]
    verdict, rating, correction = (parse_obj_as(CreateScoreRequest, line) for line in lines)

    assert {each.trace_id for each in (verdict, rating, correction)} == {trace_id(ANSWER.id)}
    assert (verdict.name, verdict.value, verdict.data_type, verdict.comment) == ("user-verdict", 0, "BOOLEAN", "太贵")
    assert (rating.value, rating.data_type) == (2, "NUMERIC")
    assert (correction.value, correction.data_type) == ("128元", "CORRECTION")
    assert not verdict.model_extra
    assert [*to_langfuse(Judged(interaction=ANSWER, vote=None))] == []


def test_parquet_has_a_column_for_each_number(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    alone = make_vote(DIGEST, "up")
    found = [Judged(interaction=ANSWER, vote=VOTE), Judged(interaction=None, vote=alone)]
    assert write_parquet(iter(found), tmp_path / "log.parquet") == 2
    first, second = parquet.read_table(tmp_path / "log.parquet").to_pylist()

    assert (first["id"], first["verdict"], first["rating"], first["output_tokens"]) == (ANSWER.id, "down", 2, 18)
    assert (first["answered"], first["judged"]) == (ANSWER.answered, VOTE.received)
    assert json.loads(first["messages"])[0]["content"] == "多少钱？"
    assert (second["id"], second["seconds"], second["verdict"]) == (alone.feedback.response_id, None, "up")


def test_a_vote_meets_its_answer_whichever_was_logged_first_and_each_once() -> None:
    store, damaged = Documents(), list[str]()
    row = msgspec.json.encode(ANSWER)
    VoteWriter(store).write([VOTE, make_vote(DIGEST, "up", answered=86400)])
    VoteWriter(store).write([msgspec.structs.replace(VOTE, received=VOTE.received + timedelta(hours=1))])
    for writer in ("a" * 12, "b" * 12):  # as two crashed writers might, which ours never does
        store.put(segment_key(FOLDER, date(2026, 1, 1), writer, 0), Segment().with_lines([row]).to_bytes())

    first, second = judged(store, None, None, None, damaged)
    assert (first.interaction, first.vote) == (ANSWER, VOTE)
    assert (second.interaction, second.vote and second.vote.feedback.verdict) == (None, "up")
    assert damaged == []
    assert len([*judged(store, date(2026, 1, 2), None, None, damaged)]) == 1
    assert len([*judged(store, None, date(2026, 1, 1), DIGEST, damaged)]) == 1
    assert [*judged(store, None, None, "sha256:" + "0" * 64, damaged)] == []


def test_of_a_segment_that_is_cut_the_whole_lines_are_there_and_its_key_is_told() -> None:
    store, damaged = Documents(), list[str]()
    rows = [msgspec.structs.replace(ANSWER, id=f"{ANSWER.id}{number}") for number in range(200)]
    body = Segment().with_lines(map(msgspec.json.encode, rows)).to_bytes()
    key = segment_key(FOLDER, datetime(2026, 1, 1, tzinfo=UTC).date(), "a" * 12, 0)
    store.put(key, body[: len(body) // 2])
    found = [*judged(store, None, None, None, damaged)]
    assert 0 < len(found) < 200
    assert damaged == [f"{key} in the store is cut; what is whole of it was read."]
