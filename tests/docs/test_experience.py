"""The page about experience reviews: its commands lead from a log of answers to a suite, a corpus and pairs."""

from __future__ import annotations

import json
import re
import shlex
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.apiserver import REPOSITORY
from tests.unit.experience.logs import MONDAY, PRICE, keep_in
from tunegate.api.codec import from_json
from tunegate.cli import root
from tunegate.review.items import Review
from tunegate.review.marks import Mark, MarkFile
from tunegate.store import Store

PAGE = (REPOSITORY / "docs/experience.md").read_text()
CONSOLE = "".join(re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
COMMANDS = [line.removeprefix("$ ") for line in CONSOLE.splitlines()]


def decide(folder: Path, better: str = "") -> None:
    """What the page does for a reviewer who says yes to all, with a better answer where there is one."""
    review = from_json((folder / "review.json").read_bytes(), Review, "review.json")
    file = MarkFile(folder / "marks.jsonl")
    for place, item in enumerate(review.items):
        marks: dict[str, int | str] = {criterion.name: 1 for criterion in review.criteria}
        for criterion, value in (marks | ({"comment": better} if better else {})).items():
            file.append(
                Mark(
                    id=f"{place}-{criterion}-ann",
                    item=item.question,
                    answers=item.digest,
                    reviewer="ann",
                    criterion=criterion,
                    value=value,
                    seconds=1,
                    time=datetime.now(UTC),
                )
            )
    file.close()


def test_the_commands_lead_from_a_log_to_what_is_learned(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_in(store)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNEGATE_STORE", store.uri)
    monkeypatch.setenv("AWS_ENDPOINT_URL", store.endpoint_url or "")
    (tmp_path / "suites/shop").mkdir(parents=True)
    (tmp_path / "suites/shop/suite.yaml").write_text(
        "name: shop\nkind: business\nlanguage: zh\ndescription: what users asked\nlicense: ours\n"
        "max_tokens: 64\ncriteria: [{name: quality, points: 5}]\n"
    )
    first = {"id": "old", "messages": [{"role": "user", "content": "?"}]}
    (tmp_path / "suites/shop/questions.jsonl").write_text(json.dumps(first))

    for line in [*COMMANDS, COMMANDS[-1]]:
        words = shlex.split(line)
        if words[1:3] == ["review", "serve"]:
            decide(tmp_path / words[3])
            continue
        done = CliRunner().invoke(root, words[1:], catch_exceptions=False)
        assert done.exit_code == 0, (line, done.output)

    assert "corpus.jsonl: 0 added, 1 were there." in done.output, "the same again adds nothing"
    questions = [json.loads(line) for line in Path("suites/shop/questions.jsonl").read_text().splitlines()]
    assert [question["id"] == "old" for question in questions] == [True, False, False]
    (row,) = (json.loads(line) for line in Path("corpus.jsonl").read_text().splitlines())
    assert row["messages"] == [{"role": "user", "content": PRICE[0]}, {"role": "assistant", "content": "99 元。"}]
    (pair,) = (json.loads(line) for line in Path("pairs.jsonl").read_text().splitlines())
    assert pair["rejected"][0]["content"] == "不知道。"
    assert "are to be learned and nobody wrote how" in done.output
    assert json.loads(Path("experience.json").read_text())["period"]["since"] == MONDAY.isoformat()


def test_a_report_is_kept_for_each_week(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_in(store)
    where = ["--store", store.uri, "--endpoint-url", store.endpoint_url or ""]
    days = ["--since", "2026-03-02", "--until", "2026-03-08"]
    done = CliRunner().invoke(root, ["experience", "report", *days, "--save", *where], catch_exceptions=False)
    assert done.exit_code == 0
    assert b"Experience review" in (store.get(".tunegate/experience/2026-03-08.html") or b"")


@pytest.mark.parametrize("link", re.findall(r"(?:\]\(|src=\")([^)\"#:]+)", PAGE))
def test_a_link_leads_somewhere(link: str) -> None:
    assert (REPOSITORY / "docs" / link).exists()
