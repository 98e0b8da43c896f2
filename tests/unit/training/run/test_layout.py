from __future__ import annotations

from pathlib import Path

import pytest

from tunegate.api.errors import UsageError
from tunegate.training.run.layout import hold


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
