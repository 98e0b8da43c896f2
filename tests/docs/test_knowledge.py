"""The page about knowledge: its files are written as it shows them, and its commands do what it says."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.apiserver import REPOSITORY
from tests.postgres import HAS_POSTGRES, postgres
from tests.unit.knowledge.embedding import embedding
from tunegate.cli import root
from tunegate.knowledge.index import Index
from tunegate.knowledge.measure import measure, read_questions
from tunegate.knowledge.readers import SUFFIXES

PAGE = (REPOSITORY / "docs/knowledge.md").read_text()
FILES = dict(re.findall(r"^`(\S+)`:\n\n```\w*\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
CONSOLE = "".join(re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
COMMANDS = [block.split("\n", 1) for block in re.split(r"^\$ tunegate ", CONSOLE, flags=re.MULTILINE)[1:]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNEGATE_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str | None]:
    """A PostgreSQL with pgvector, where there is one."""
    if HAS_POSTGRES:
        with postgres(tmp_path_factory.mktemp("postgres")) as url:
            yield url
    else:
        yield None


def test_the_commands_do_what_the_page_says(folder: Path, database: str | None) -> None:
    with embedding() as server:
        for words, shown in COMMANDS:
            if "postgresql://" in words and database is None:
                continue
            words = words.replace("postgresql://HOST/DB", str(database))
            result = CliRunner().invoke(root, shlex.split(words.replace("http://127.0.0.1:8081", server.url)))

            assert result.exit_code == 0, (words, result.output, result.exception)
            assert shown in ("", re.sub("sha256:[0-9a-f]{64}", "sha256:DIGEST", result.stdout)), words
    questions = read_questions(folder / "questions.jsonl")
    names = {metric.name.partition("/")[0] for metric in measure(Index(folder / "index"), "", questions).metrics}
    table = PAGE.partition("| metric |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", table)) <= names


def test_the_table_of_suffixes_is_complete() -> None:
    table = PAGE.partition("| suffix |")[2].partition("\n\n")[0]

    assert set(re.findall(r"`(\.\w+)`", table)) == SUFFIXES


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#:]+)\)", PAGE))
def test_a_link_leads_somewhere(link: str) -> None:
    assert (REPOSITORY / "docs" / link).exists()
