"""The page about reviews: its commands make one, serve it and keep its result; its suite is one."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.answering import answering
from tests.apiserver import REPOSITORY
from tests.unit.review.builders import make_mark, stored_answers
from tunegate.api.codec import from_json
from tunegate.api.versions import Producer, Release
from tunegate.cli import root
from tunegate.evaluation import load_suite
from tunegate.evaluation.business import BusinessSuite
from tunegate.review.items import Review
from tunegate.review.marks import MarkFile
from tunegate.store import Store
from tunegate.store.evaluations import find, save

PAGE = (REPOSITORY / "docs/review.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


COMMANDS = [line.removeprefix("$ ") for block in blocks("console") for line in block.splitlines()]


def answer(store: Store, run: str, folder: Path) -> str:
    """A version, and what `tunegate evaluate` would have kept of it; its name."""
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(run.encode())
    release, producer = Release(format="huggingface"), Producer(kind="test")
    version = store.publish(folder, f"shop/{run}/checkpoint-1", release=release, producer=producer)
    suite = load_suite("shop-en")
    assert isinstance(suite, BusinessSuite)
    save(store, stored_answers(version, suite, [f"{run}: {question.id}" for question in suite.questions]))
    return version.name


def test_the_commands_make_serve_and_keep_a_review(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {run: answer(store, run.lower(), tmp_path / run) for run in ("STABLE", "CANDIDATE")}
    monkeypatch.chdir(tmp_path)

    def words(verb: str, place: int = 0) -> list[str]:
        line = [line for line in COMMANDS if f"review {verb}" in line][place]
        found = [names.get(word, word) for word in shlex.split(line)[1:]]
        return [word.replace("s3://tunegate", store.uri) for word in found]

    for place in (0, 1):
        assert CliRunner().invoke(root, words("create", place), catch_exceptions=False).exit_code == 0
    for place in (0, 1):
        argv = [sys.executable, "-m", "tunegate", *words("serve", place)]
        port = argv.index("--port") + 1 if "--port" in argv else 0
        argv = [*argv[:port], "0", *argv[port + 1 :]] if port else [*argv, "--port", "0"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as child:
            try:
                assert child.stdout is not None
                url, _, token = child.stdout.readline().strip().partition("#token=")
                assert bool(token) is ("--host" in argv)
                with urllib.request.urlopen(url, timeout=100) as page:
                    assert b"tunegate review" in page.read()
            finally:
                child.kill()

    review = from_json(Path("shop-review/review.json").read_bytes(), Review, "review.json")
    marks = MarkFile(Path("shop-review/marks.jsonl"))
    for digest in review.judged:
        for reviewer in ("Li", "Ana"):
            marks.append(make_mark(digest, reviewer, "preference", "second"))
    marks.close()
    assert CliRunner().invoke(root, words("export"), catch_exceptions=False).exit_code == 0
    Path("shop-review/label-studio.json").rename("export.json")
    assert "new marks" in CliRunner().invoke(root, words("import"), catch_exceptions=False).output
    assert CliRunner().invoke(root, words("result"), catch_exceptions=False).exit_code == 0
    kept = find(store, store.resolve(names["CANDIDATE"]).digest, "shop-en.pairs")
    assert kept is not None
    named = {metric.name.replace("preference", "CRITERION") for metric in kept.metrics}
    assert named <= set(re.findall(r"`((?:agreement/)?CRITERION\w*)`", PAGE))
    with answering(lambda question: "[[tie]]") as (url, _):
        argv = words("judge")
        argv[argv.index("--url") + 1] = url
        assert CliRunner().invoke(root, argv, catch_exceptions=False).exit_code == 0
    judged = find(store, store.resolve(names["CANDIDATE"]).digest, "shop-en.judge-pairs")
    assert judged is not None
    assert {metric.name for metric in judged.metrics} >= {"agreement/preference", "contradicted/preference"}
    assert json.dumps(names["STABLE"]) not in Path("shop-review/marks.jsonl").read_text()


def test_the_suite_of_the_page_is_one(tmp_path: Path) -> None:
    (suite,) = blocks("yaml")
    (tmp_path / "suite.yaml").write_text(suite)
    row = {
        "id": "q",
        "messages": [{"role": "user", "content": "Hello?"}],
        "reference": "Hello.",
        "context": "A greeting.",
    }
    (tmp_path / "questions.jsonl").write_text(json.dumps(row))
    loaded = load_suite(tmp_path)
    assert isinstance(loaded, BusinessSuite)
    assert [(each.name, each.points, each.least) for each in loaded.criteria] == [("correct", 2, 1), ("tone", 3, 2)]
