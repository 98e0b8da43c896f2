"""What charts, pipelines, images and docs call an environment variable is what the code calls it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tunegate.api import environment

ROOT = Path(__file__).parents[3]
NAMES = {value for name, value in vars(environment).items() if name.isupper() and isinstance(value, str)}
OTHERS = {"TUNEGATE_TEST_CRDS"}  # read by tests only


def _texts(*folders: str, suffixes: tuple[str, ...] = ("",)) -> list[Path]:
    paths = (path for folder in folders for path in (ROOT / folder).rglob("*"))
    return [path for path in paths if (path.is_file() and path.suffix in suffixes) or path.name == "Dockerfile"]


@pytest.mark.parametrize("folder", ["charts", "pipelines", "images", "docs", "hack"])
def test_other_files_name_only_variables_that_are_listed(folder: str) -> None:
    named = {
        (path.relative_to(ROOT).as_posix(), name)
        for path in _texts(folder, suffixes=(".yaml", ".tpl", ".txt", ".md", ".py"))
        for name in re.findall(r"\bTUNEGATE_[A-Z_]+", path.read_text())
    }
    assert {(path, name) for path, name in named if name not in NAMES | OTHERS} == set()


def test_no_other_module_spells_one_as_a_value() -> None:
    literal = re.compile(f"[\"']({'|'.join(NAMES)})[\"']")
    modules = [path for path in _texts("src", "operators", suffixes=(".py",)) if path.name != "environment.py"]
    assert [str(path) for path in modules if literal.search(path.read_text())] == []
