"""The page about prompts: its files are written as it shows them, and its commands do what it says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.answering import answering
from tests.apiserver import REPOSITORY
from tunegate.cli import root
from tunegate.models import make_tiny
from tunegate.prompts import builtin_names
from tunegate.prompts.lint import RULES
from tunegate.prompts.template import Head

PAGE = (REPOSITORY / "docs/prompts.md").read_text()
FILES = dict(re.findall(r"^`(\S+)`:\n\n```\w*\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
CONSOLE = "".join(re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
# A command with what the page shows of its output, which may be nothing.
COMMANDS = [tuple(block.split("\n", 1)) for block in re.split(r"^\$ tunegate ", CONSOLE, flags=re.MULTILINE)[1:]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny") / "model", ["Kettle KT-1"])


@pytest.fixture
def folder(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of the page, and those that it names without showing them."""
    (tmp_path / "values.yaml").write_text("product: Kettle KT-1\n")
    (tmp_path / "guide-2.prompt").write_text(FILES["guide.prompt"].replace("3 short", "2 short"))
    for name in ("base-model", "shop/run-7/checkpoint-800"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(model)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("words", "shown"), COMMANDS, ids=[words for words, _ in COMMANDS])
def test_a_command_does_what_the_page_says(words: str, shown: str) -> None:
    with answering(lambda _: "The kettle is $26.") as (url, _):
        result = CliRunner().invoke(root, shlex.split(words.replace("http://127.0.0.1:8080", url)))

    assert result.exit_code == int("lint" in words), result.exception
    assert shown in ("", result.stdout)


def rows(title: str) -> list[str]:
    """What stands in the first column of the table with that title."""
    return re.findall(r"^\| `([\w-]+)` \|", PAGE.partition(f"\n| {title} |")[2].partition("\n\n")[0], re.MULTILINE)


def test_the_tables_are_complete() -> None:
    good = [name for name in builtin_names() if not name.startswith("bad-")]

    assert rows("field") == list(Head.__struct_fields__)
    assert rows("rule") == list(RULES)
    assert sorted(f"{name}-{language}" for name in rows("name") for language in ("en", "zh")) == good


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#:]+)\)", PAGE))
def test_a_link_leads_somewhere(link: str) -> None:
    assert (REPOSITORY / "docs" / link).exists()
