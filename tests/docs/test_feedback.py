"""The commands of the page on feedback, run as they stand there, on a real store and our routes."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import msgspec
import pytest

from tests.apiserver import REPOSITORY
from tests.refusals import call
from tests.unit.serving.conftest import admission, documents, engine, limits, origins, parts, server
from tests.unit.serving.standin import DIGEST, Server, now
from tunegate.api.versions import Producer, Release
from tunegate.feedback.interactions import FOLDER, Interaction
from tunegate.feedback.redact import RULES
from tunegate.feedback.segments import Segment, segment_key
from tunegate.store import Store

__all__ = ["admission", "documents", "engine", "limits", "origins", "parts", "server"]
PAGE = (REPOSITORY / "docs/feedback.md").read_text()
COMMANDS = [
    line.strip().removeprefix("$ ")
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]


def test_the_commands_of_the_page_do_what_it_says(
    server: Server, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyarrow")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    release, producer = Release(format="huggingface"), Producer(kind="test")
    store.publish(tmp_path / "model", "shop/run-1/checkpoint-60", release=release, producer=producer)
    answer = server.ids.issue(DIGEST, now())
    row = Interaction(id=answer, model="shop", digest=DIGEST, answered=now(), finish="stop", seconds=1.0)
    key = segment_key(FOLDER, now().date(), "a" * 12, 0)
    store.put(key, Segment().with_lines([msgspec.json.encode(row)]).to_bytes())
    monkeypatch.setenv("ANSWER", answer)
    monkeypatch.setenv("URL", server.url)

    said = [
        call(*(word.replace("$ANSWER", answer).replace("$URL", server.url) for word in shlex.split(line)[1:]))
        for line in COMMANDS
    ]
    assert said[0] == "Accepted.\n"
    assert json.loads((tmp_path / "answers.jsonl").read_text())["interaction"]["id"] == answer
    assert (tmp_path / "answers.parquet").stat().st_size > 0
    assert "gen_ai.response.id" in (tmp_path / "spans.jsonl").read_text()
    assert (tmp_path / "scores.jsonl").read_text() == ""  # the vote is in the routes' own store
    assert "would be deleted" in said[-2]
    assert "were deleted" in said[-1]


def test_the_page_names_every_mark() -> None:
    assert {rule.mark for rule in RULES} == set(re.findall(r"\| `(<[a-z-]+>)` \|", PAGE))
