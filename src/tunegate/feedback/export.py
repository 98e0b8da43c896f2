"""The logs in the forms of others: pure, from an answer with its vote to a line or a row.

A trace's id follows from the response id, so that what is exported twice is the same trace, and scores find theirs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from tunegate.api.errors import UsageError
from tunegate.api.feedback import FeedbackRecord
from tunegate.feedback.interactions import Content, Interaction, Judged


def to_jsonl(judged: Judged) -> Iterator[bytes]:
    """All that is known, as it is kept."""
    yield msgspec.json.encode(judged)


def to_opentelemetry(judged: Judged) -> Iterator[bytes]:
    """One line of OTLP's JSON, as collectors read from a file and take at /v1/traces: a span by the conventions for
    GenAI, with what the user said as the event `gen_ai.evaluation.result`. Without the answer there is no span."""
    answer = judged.interaction
    if answer is None:
        return
    end = answer.answered + timedelta(seconds=answer.seconds)
    span = {
        "traceId": trace_id(answer.id),
        "spanId": trace_id(answer.id)[:16],
        "name": f"chat {answer.model}",
        "kind": 1,  # internal: the span of the server itself
        "startTimeUnixNano": _nanoseconds(answer.answered),
        "endTimeUnixNano": _nanoseconds(end),
        "attributes": _attributes(_of_answer(answer)),
        "events": [*_events(answer, judged.vote)] if judged.vote else [],
        "status": {} if answer.finish not in _FAILED else {"code": 2, "message": answer.finish},
    }
    scope = {"scope": {"name": "tunegate"}, "spans": [span]}
    resource = {"attributes": _attributes({"service.name": answer.model})}
    yield _line({"resourceSpans": [{"resource": resource, "scopeSpans": [scope]}]})


def to_langfuse(judged: Judged) -> Iterator[bytes]:
    """The bodies of `POST /api/public/scores`, one a line. The traces that they belong to are those of OpenTelemetry,
    which Langfuse takes at /api/public/otel."""
    if (vote := judged.vote) is None:
        return
    said, answer = vote.feedback, vote.feedback.response_id
    common = {"traceId": trace_id(answer), "timestamp": vote.received.isoformat()}
    comment = {"comment": said.comment} if said.comment else {}
    metadata = {"metadata": {"version": vote.digest, "step": vote.step, "tags": list(said.tags)}}
    value = int(said.verdict == "up")
    verdict = {"id": f"{trace_id(answer)}-verdict", "name": "user-verdict", "value": value, "dataType": "BOOLEAN"}
    yield _line({**common, **verdict, **comment, **metadata})
    if said.rating is not None:
        rating = {"id": f"{trace_id(answer)}-rating", "name": "user-rating", "value": said.rating}
        yield _line({**common, **rating, "dataType": "NUMERIC"})
    if said.correction:
        correction = {"id": f"{trace_id(answer)}-correction", "name": "output", "value": said.correction}
        yield _line({**common, **correction, "dataType": "CORRECTION"})


Lines = Callable[[Judged], Iterator[bytes]]
FORMATS: Mapping[str, Lines] = {"jsonl": to_jsonl, "opentelemetry": to_opentelemetry, "langfuse": to_langfuse}
"""What writes lines, by the name of its format; Parquet has rows."""


def write_parquet(found: Iterable[Judged], path: Path) -> int:
    """One row for each answer, one column for each number; says how many rows. Raises UsageError without pyarrow."""
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise UsageError('Parquet files need pyarrow; install it with: pip install "tunegate[parquet]"') from None
    schema = pyarrow.schema([(name, _type(pyarrow, kind)) for name, kind in _COLUMNS.items()])
    rows = 0
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in _batches(found, 5000):
            writer.write_table(pyarrow.Table.from_pylist([_row(judged) for judged in batch], schema))
            rows += len(batch)
    return rows


def trace_id(response_id: str) -> str:
    """16 bytes in hex."""
    return hashlib.sha256(response_id.encode()).hexdigest()[:32]


_FAILED = ("engine", "internal", "unavailable", "request", "disconnect")
_COLUMNS = {
    "id": "string",
    "model": "string",
    "digest": "string",
    "step": "string",
    "user": "string",
    "conversation": "string",
    "answered": "time",
    "finish": "string",
    "prompt_template": "string",
    "prompts": "string",
    "knowledge": "string",
    "input_tokens": "int64",
    "output_tokens": "int64",
    "first_text_seconds": "float64",
    "seconds": "float64",
    "tools": "string",
    "tool_failures": "int64",
    "sources": "int64",
    "messages": "string",
    "answer": "string",
    "verdict": "string",
    "rating": "int64",
    "tags": "string",
    "comment": "string",
    "correction": "string",
    "judged": "time",
}


def _type(pyarrow: Any, kind: str) -> Any:
    return pyarrow.timestamp("us", tz="UTC") if kind == "time" else getattr(pyarrow, kind)()


def _row(judged: Judged) -> dict[str, Any]:
    """By the names of the columns; tools, messages and tags are JSON."""
    row: dict[str, Any] = {}
    if answer := judged.interaction:
        plain, content = msgspec.structs.asdict(answer), answer.content or Content()
        row |= {name: plain[name] for name in _COLUMNS if name in plain}
        row |= {"tools": _json(answer.tools), "prompts": answer.release.prompts, "knowledge": answer.release.knowledge}
        row |= {"messages": _json(content.messages), "answer": content.answer} if answer.content else {}
    if vote := judged.vote:
        said = vote.feedback
        row |= {"id": said.response_id, "digest": vote.digest, "step": vote.step, "user": vote.user}
        row |= {"answered": row.get("answered", vote.answered), "judged": vote.received}
        row |= {"verdict": said.verdict, "rating": said.rating, "tags": _json(said.tags)}
        row |= {"comment": said.comment, "correction": said.correction}
    return row


def _batches(found: Iterable[Judged], size: int) -> Iterator[list[Judged]]:
    batch: list[Judged] = []
    for judged in found:
        batch.append(judged)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _of_answer(answer: Interaction) -> dict[str, Any]:
    """The attributes of an answer's span; texts are there where they were logged."""
    found = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "tunegate",
        "gen_ai.request.model": answer.model,
        "gen_ai.response.model": f"{answer.model}@{answer.digest}",
        "gen_ai.response.id": answer.id,
        "gen_ai.response.finish_reasons": [answer.finish],
        "gen_ai.response.time_to_first_chunk": answer.first_text_seconds,
        "gen_ai.usage.input_tokens": answer.input_tokens,
        "gen_ai.usage.output_tokens": answer.output_tokens,
        "gen_ai.conversation.id": answer.conversation,
        "gen_ai.prompt.name": answer.prompt_template,
        "tunegate.step": answer.step,
        "tunegate.tools": [f"{tool}: {times}" for tool, times in answer.tools.items()],
        "tunegate.tool_failures": answer.tool_failures,
        "tunegate.sources": answer.sources,
        "user.id": answer.user,
        "error.type": answer.finish if answer.finish in _FAILED else None,
    }
    if content := answer.content:
        asked = [_message(said.get("role", "user"), said.get("content")) for said in content.messages]
        given = {**_message("assistant", content.answer), "finish_reason": answer.finish}
        found |= {"gen_ai.input.messages": _json(asked), "gen_ai.output.messages": _json([given])}
    return {name: value for name, value in found.items() if value not in (None, [])}


def _events(answer: Interaction, vote: FeedbackRecord) -> Iterator[dict[str, Any]]:
    said = vote.feedback
    results: list[tuple[str, str, float]] = [("user.verdict", said.verdict, float(said.verdict == "up"))]
    results += [("user.rating", str(said.rating), float(said.rating))] if said.rating is not None else []
    for name, label, value in results:
        attributes = {
            "gen_ai.evaluation.name": name,
            "gen_ai.evaluation.score.label": label,
            "gen_ai.evaluation.score.value": value,
            "gen_ai.response.id": answer.id,
            **({"gen_ai.evaluation.explanation": said.comment} if said.comment else {}),
        }
        event = {"name": "gen_ai.evaluation.result", "timeUnixNano": _nanoseconds(vote.received)}
        yield {**event, "attributes": _attributes(attributes)}


def _message(role: str, content: Any) -> dict[str, Any]:
    text = content if isinstance(content, str) else _json(content)
    return {"role": role, "parts": [{"type": "text", "content": text}]}


def _attributes(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": name, "value": _value(value)} for name, value in found.items()]


def _value(value: Any) -> dict[str, Any]:
    """OTLP's JSON spells 64-bit integers as texts."""
    match value:
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case list():
            return {"arrayValue": {"values": [_value(item) for item in value]}}
        case _:
            return {"stringValue": str(value)}


def _nanoseconds(moment: datetime) -> str:
    return str(round(moment.timestamp() * 1_000_000) * 1000)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _line(value: Any) -> bytes:
    return msgspec.json.encode(value)
