"""Logs in which fields are missing: what can be read is read, what can't is counted and named."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from tests.documents import Documents
from tests.unit.experience.logs import DIGEST, MONDAY, PRICE, answered, keep_in
from tunegate.api.feedback import FeedbackRecord
from tunegate.cli import root
from tunegate.feedback import interactions, votes
from tunegate.feedback.history import judged
from tunegate.feedback.interactions import Interaction
from tunegate.feedback.segments import Segment, segment_key
from tunegate.store import Store

JUDGED = answered(1, PRICE[0], "down", correction="99 元。")
NEEDED = {
    Interaction: {"id", "model", "digest", "answered", "finish", "seconds"},
    FeedbackRecord: {"digest", "answered", "received", "feedback"},
}


def without(record: Any, field: str) -> bytes:
    plain = {name: value for name, value in msgspec.to_builtins(record).items() if name != field}
    return json.dumps(plain).encode()


@pytest.mark.parametrize("kind", [Interaction, FeedbackRecord])
def test_each_field_may_be_missing(kind: type) -> None:
    record = JUDGED.interaction if kind is Interaction else JUDGED.vote
    folder = interactions.FOLDER if kind is Interaction else f"{votes.FOLDER}/{DIGEST.removeprefix('sha256:')}"
    for field in msgspec.structs.fields(kind):
        store, damaged = Documents(), list[str]()
        key = segment_key(folder, MONDAY, "a" * 12, 0)
        whole = msgspec.json.encode(record).replace(b"-0-1", b"-0-2")
        store.put(key, Segment().with_lines([without(record, field.name), whole]).to_bytes())
        found = [*judged(store, None, None, None, damaged)]
        if field.name in NEEDED[kind]:
            assert len(found) == 1
            (told,) = damaged
            assert told.startswith(f"1 of 2 lines left out: {key} is not a valid {kind.__name__}: ")
            assert f"`{field.name}`" in told
        else:
            assert (len(found), damaged) == (2, [])


def test_what_is_no_json_is_counted_once_for_all() -> None:
    store, damaged = Documents(), list[str]()
    lines = [b"{}", b"{}", b"<html>", msgspec.json.encode(JUDGED.interaction)]
    store.put(segment_key(interactions.FOLDER, MONDAY, "a" * 12, 0), Segment().with_lines(lines).to_bytes())
    assert [*interactions.read_day(store, MONDAY, damaged)] == [JUDGED.interaction]
    assert [told.partition(":")[0] for told in damaged] == ["2 of 4 lines left out", "1 of 4 lines left out"]


def test_a_report_of_half_a_log_says_so(store: Store) -> None:
    keep_in(store)
    store.put(segment_key(interactions.FOLDER, date(2026, 3, 3), "b" * 12, 0), Segment().with_lines([b"{}"]).to_bytes())
    where = ["--store", store.uri, "--endpoint-url", store.endpoint_url or ""]
    days = ["--since", "2026-03-02", "--until", "2026-03-08"]
    done = CliRunner().invoke(root, ["experience", "report", *days, *where], catch_exceptions=False)
    assert "3 answers, 3 judged, 2 disliked" in done.stdout
    assert "1 of 1 lines left out: .tunegate/interactions/2026-03-03/" in done.stderr
