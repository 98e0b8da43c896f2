"""The page about corpora: its plan and its commands make one."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.answering import answering
from tests.apiserver import REPOSITORY
from tests.docs.test_experience import decide
from tests.unit.corpus.test_build import Teacher
from tests.unit.experience.logs import keep_in
from tunegate.api.codec import from_yaml
from tunegate.cli import root
from tunegate.corpus.plan import Plan
from tunegate.models import make_tiny
from tunegate.store import Store

PAGE = (REPOSITORY / "docs/corpus.md").read_text()
COMMANDS = re.findall(r"^\$ (.*)$", PAGE, re.MULTILINE)
PLAN, CORRECTED = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_plan_and_the_commands_make_a_corpus(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_in(store)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNEGATE_STORE", store.uri)
    monkeypatch.setenv("AWS_ENDPOINT_URL", store.endpoint_url or "")
    Path("suggestions.txt").write_text("双肩包能装电脑吗？\n", "utf-8")
    Path("plan.yaml").write_text(PLAN.replace("count: 200", "count: 12"), "utf-8")
    teacher = Teacher()
    teacher.score = lambda asked: "分数：2" if "耳机" in asked else "分数：4"
    with answering(teacher) as (url, _):
        for line in COMMANDS:
            words = shlex.split(line.replace("$URL", url))
            if words[1:3] == ["review", "serve"]:
                decide(tmp_path / words[3], "这款 89 元。")
                continue
            if words[1] == "train":
                make_tiny(tmp_path / "base", [PLAN])
                monkeypatch.delenv("TUNEGATE_STORE")
            one_by_one = ["--concurrency", "1"] if words[1:3] == ["corpus", "build"] else []  # as the teacher counts
            done = CliRunner().invoke(root, [*words[1:], *one_by_one], catch_exceptions=False)
            assert done.exit_code == 0, (line, done.output)
            if words[1:3] == ["review", "export"]:  # as Label Studio gives it back, with what was said
                Path("doubts/label-studio.json").rename("export.json")
    built = [json.loads(line) for line in Path("corpus/data/train.jsonl").read_text().splitlines()]
    decided = Path("corpus/data/decided.jsonl").read_text().splitlines()
    assert (len(built), len(decided)) == (11, 1)
    assert "这款 89 元。" in decided[0]
    assert (tmp_path / "runs/liked/adapter_model.safetensors").exists()
    assert {row["origin"]["scenario"] for row in built} == {"price", "returns"}


def test_the_other_plan_is_one() -> None:
    assert from_yaml(CORRECTED.encode(), Plan, "page").decided


@pytest.mark.parametrize("link", re.findall(r"(?:\]\(|src=\")([^)\"#:]+)", PAGE))
def test_a_link_leads_somewhere(link: str) -> None:
    assert (REPOSITORY / "docs" / link).exists()
