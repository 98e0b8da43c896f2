"""`tunegate knowledge`: what people and scripts see of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.knowledge.embedding import embedding
from tunegate.cli import main

HELP = "# Help\n\n## Returns\n\nSend it back within 14 days.\n\n## 保修\n\n电水壶KT-100保修两年。\n"
QUESTIONS = [
    {"id": "1", "question": "within how many days can I send it back", "contains": ["14 days"], "group": "en"},
    {"id": "2", "question": "KT-100保修多久", "contains": ["KT-100"], "group": "zh"},
    {"id": "3", "question": "today's news"},
]


@pytest.fixture
def docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNEGATE_CACHE", str(tmp_path / "cache"))
    Path("docs").mkdir()
    Path("docs/help.md").write_text(HELP)
    Path("docs/logo.png").write_text("")
    Path("questions.jsonl").write_text("\n".join(map(json.dumps, QUESTIONS)))
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["knowledge", *words])
    said = capsys.readouterr()
    assert ended.value.code == status, said.err
    return said.out if status == 0 else said.err


def run_json(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    return json.loads(run(capsys, *words, "--json"))


@pytest.mark.usefixtures("docs", "store")
def test_an_index_goes_to_the_store_and_is_asked_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    built = run_json(capsys, "build", "help", "docs", "--embedder", "none")
    again = run_json(capsys, "build", "help", "docs", "--embedder", "none")
    found = run_json(capsys, "ask", f"help@{built['digest']}", "can I send it back?")

    assert built == again
    assert (built["documents"], built["chunks"], built["skipped"]) == (1, 2, ["logo.png"])
    assert found["index"] == built["digest"]
    assert [hit["chunk"]["headings"] for hit in found["hits"]] == [["Help", "Returns"]]
    assert "[1] Help > Returns\nSend it back within 14 days." in run(capsys, "ask", "help", "can I send it back?")


@pytest.mark.usefixtures("docs")
def test_a_folder_needs_no_store(capsys: pytest.CaptureFixture[str]) -> None:
    said = run(
        capsys, "build", "help", "docs", "--into", "index", "--embedder", "none", "--questions", "questions.jsonl"
    )
    explained = run(capsys, "ask", "index", "KT-100的天气", "--explain")
    measured = run_json(capsys, "measure", "index", "questions.jsonl")

    assert "no vectors: searched by words alone (BM25)" in said
    assert "of no kind that is read, left out: logo.png" in said
    assert "kt100" in explained
    assert "Help > 保修" in explained
    numbers = {metric["name"]: metric["value"] for metric in measured["metrics"]}
    assert (numbers["recall_at_5"], numbers["recall_at_5/zh"], numbers["answered"], numbers["refused"]) == (1, 1, 1, 1)
    assert measured["index"] in said
    assert run(capsys, "ask", "index", "today's news").strip() == "The knowledge base does not say."
    assert "recall_at_5" in run(capsys, "measure", "index", "questions.jsonl")


@pytest.mark.usefixtures("docs", "store")
def test_vectors_come_from_a_url_whose_key_is_in_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEGATE_EMBEDDER_KEY", "secret")
    with embedding() as server:
        options = ("--embedder", server.url, "--embedder-model", "hashing")
        assert run_json(capsys, "build", "help", "docs", *options)["embedded"] == 2
        Path("docs/more.md").write_text("# Payment\n\nCards.\n")
        again = run_json(capsys, "build", "help", "docs", *options)
        assert (again["chunks"], again["embedded"]) == (3, 1)
        assert run_json(capsys, "ask", "help", "back within 14 days", *options)["hits"][0]["cosine"] > 0.3
        assert set(server.keys) == {"Bearer secret"}
        assert "--embedder-model NAME" in run(capsys, "ask", "help", "back", *options[:2], status=2)
    assert "name a server that has it" in run(capsys, "ask", "help", "back", status=1)


@pytest.mark.usefixtures("docs")
def test_what_is_wrong_is_one_sentence(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUNEGATE_STORE", raising=False)
    Path("empty").mkdir()

    assert "holds no file that is read" in run(capsys, "build", "x", "empty", "--into", "index", status=1)
    assert "--store" in run(capsys, "build", "x", "docs", status=2)
    assert "no folder with an index" in run(capsys, "ask", "index", "x", status=2)
    assert not Path("index").exists()
