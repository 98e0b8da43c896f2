"""The page about decision records: its commands do what it says, and its table names the links there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from tests.answering import listening, serving
from tests.apiserver import REPOSITORY
from tests.unit.local.test_records import platform, ticked
from tunegate.cli import root
from tunegate.local.platform import Platform
from tunegate.records.checking import LINKS

__all__ = ["platform"]
PAGE = (REPOSITORY / "docs/records.md").read_text()
COMMANDS = re.findall(r"^\$ tunegate (.*)$", PAGE, re.MULTILINE)


def test_the_table_names_every_link_in_order() -> None:
    table = PAGE.partition("| link | holds when |")[2].partition("\n\n")[0]
    assert tuple(re.findall(r"^\| (\w+) \|", table, re.MULTILINE)) == LINKS


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_does_what_the_page_says(
    platform: Platform,
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home = platform.config.home
    (name,) = re.findall(r"shop-run-7-[0-9a-f]+", command)
    (found,) = home.promotions()
    home.save(msgspec.structs.replace(found, name=name))
    (home.folder / "promotions/shop-run-7.json").unlink()
    assert all(each.status.record for each in ticked(platform))
    monkeypatch.chdir(tmp_path)
    where = ["--home", str(home.folder), "--store", platform.store.uri]
    where += ["--endpoint-url", str(platform.store.endpoint_url)]
    with listening(serving(found.candidate.digest)) as url:
        asked = ["--url", url] if " verify " in command else []
        done = CliRunner().invoke(root, [*shlex.split(command), *where, *asked])
    assert done.exit_code == 0, (done.output, done.exception)
    assert (tmp_path / "why.html").exists() == ("why.html" in command)
