"""The README speaks of commands, targets and files that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from tunegate.cli import root

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
COMMANDS = sorted(set(re.findall(r"`tunegate ([a-z]+(?: [a-z]+)?)", README)))
TARGETS = sorted(set(re.findall(r"make ([a-z]+)", README)))
LINKS = sorted(set(re.findall(r"\]\(([^)#:]+)\)", README)))


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_of_the_readme_exists(words: str) -> None:
    result = CliRunner().invoke(root, [*words.split(), "--help"])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("target", TARGETS)
def test_a_make_target_of_the_readme_exists(target: str) -> None:
    assert re.search(rf"^{target}:.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("link", LINKS)
def test_a_link_of_the_readme_leads_somewhere(link: str) -> None:
    assert (ROOT / link).exists()
