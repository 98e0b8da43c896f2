"""The page about reports: its commands make one."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.apiserver import REPOSITORY
from tunegate.api.versions import Producer, Release
from tunegate.cli import root
from tunegate.evaluation import load_suite
from tunegate.models import make_tiny
from tunegate.store import Store

PAGE = (REPOSITORY / "docs/report.md").read_text()
CONSOLE = "".join(re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
COMMANDS = [line.removeprefix("$ ") for line in CONSOLE.splitlines()]


def test_the_commands_make_a_report(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {}
    for run, text in (("STABLE", "Hello"), ("CANDIDATE", "Kettle")):
        model = make_tiny(tmp_path / run, [text, "What does the kettle cost?"])
        about = {"release": Release(format="huggingface"), "producer": Producer(kind="test")}
        names[run] = store.publish(model, f"shop/{run.lower()}/checkpoint-0", **about).name  # type: ignore[arg-type]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNEGATE_STORE", store.uri)
    monkeypatch.setenv("AWS_ENDPOINT_URL", store.endpoint_url or "")
    monkeypatch.setenv("TUNEGATE_CACHE", str(tmp_path / "cache"))
    question = load_suite("shop-en").questions[0].messages[-1].content  # type: ignore[union-attr]
    (tmp_path / "data").mkdir()
    (tmp_path / "data/train.jsonl").write_text(json.dumps({"instruction": question, "output": "Yes."}) + "\n")

    for line in COMMANDS:
        words = [names.get(word, word) for word in shlex.split(line)]
        assert words.pop(0) == "tunegate"
        limit = ["--limit", "4"] if words[0] == "evaluate" else []
        done = CliRunner().invoke(root, [*words, *limit], catch_exceptions=False)
        assert done.exit_code == 0, (line, done.output)

    report = json.loads(Path("report.json").read_text())
    assert [version["name"] for version in report["versions"]] == list(names.values())
    assert "1 of 4 questions" in Path("report.html").read_text()


@pytest.mark.parametrize("link", re.findall(r"(?:\]\(|src=\")([^)\"#:]+)", PAGE))
def test_a_link_leads_somewhere(link: str) -> None:
    assert (REPOSITORY / "docs" / link).exists()
