"""What quickstart does with the folder of an earlier one."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from tunegate.api.errors import UsageError
from tunegate.cli.quickstart import command, make_room


def fill(home: Path, *names: str) -> None:
    for name in names:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).touch()


def left(home: Path) -> list[str]:
    return sorted(path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file())


def test_one_that_was_stopped_goes_on_with_all_it_has(tmp_path: Path) -> None:
    fill(tmp_path, "lock", "store/data", "promotions/a.json")
    make_room(tmp_path)
    assert left(tmp_path) == ["lock", "promotions/a.json", "store/data"]


def test_one_that_ended_makes_room_and_leaves_the_converted_base(tmp_path: Path) -> None:
    fill(tmp_path, "lock", "quickstart.json", "store/data", "promotions/a.json", "cache/bases/x/model")
    make_room(tmp_path)
    assert left(tmp_path) == ["cache/bases/x/model", "lock"]


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    fill(tmp_path, "thesis.tex")
    with pytest.raises(UsageError, match="--home"):
        make_room(tmp_path)
    assert left(tmp_path) == ["thesis.tex"]


def test_a_folder_that_is_not_there_is_fine(tmp_path: Path) -> None:
    make_room(tmp_path / "new")


def test_an_unknown_base_names_the_known_ones() -> None:
    result = CliRunner().invoke(command, ["--base", "gpt"])
    assert result.exit_code == 2
    assert "smollm2-135m" in result.output
