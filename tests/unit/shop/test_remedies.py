"""What the generator of the shop's files refuses is well once the message's words were followed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.refusals import without_story
from tunegate.shop import DATA, generate


def test_files_that_differ_are_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "DATA", shutil.copytree(DATA, tmp_path / "data"))
    (tmp_path / "data/shoppers_en.jsonl").write_text("{}\n")
    refusal = CliRunner().invoke(generate.main, ["--check"])
    assert refusal.exit_code == 1
    assert "; run python -m tunegate.shop.generate and commit the result" in refusal.output.replace("\n", " ")
    assert CliRunner().invoke(generate.main, []).exit_code == 0
    assert CliRunner().invoke(generate.main, ["--check"]).exit_code == 0


def test_every_message_has_its_story() -> None:
    assert without_story("shop", Path(__file__)) == []
