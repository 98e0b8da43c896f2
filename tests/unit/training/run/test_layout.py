from __future__ import annotations

from pathlib import Path

import pytest

from tunegate.api.errors import UsageError
from tunegate.training.run.layout import failure_path, failures, hold, log_path, plan_path


def test_a_folder_is_held_by_one_run_at_a_time(tmp_path: Path) -> None:
    with hold(tmp_path), pytest.raises(UsageError, match="Another run is using"), hold(tmp_path):
        pass
    with hold(tmp_path):
        pass


def test_a_folder_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with (
        pytest.raises(UsageError, match="can't be written: Not a directory; give another --output_dir"),
        hold(tmp_path / "file" / "out"),
    ):
        pass


def test_the_first_nodes_files_have_the_plain_names(tmp_path: Path) -> None:
    names = [path(tmp_path, node).name for node in (0, 2) for path in (plan_path, log_path)]

    assert names == ["plan.json", "train.log", "plan-2.json", "train-2.log"]


def test_ranks_that_gave_up_are_found_by_what_they_left(tmp_path: Path) -> None:
    for rank in (0, 11):
        failure_path(tmp_path, rank).touch()

    assert failures(tmp_path) == {rank: tmp_path / f"failure-{rank}.json" for rank in (0, 11)}
