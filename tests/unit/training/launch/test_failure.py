from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from tunegate.api.errors import DataError
from tunegate.training.launch.failure import explain


def test_our_own_errors_are_for_the_user_as_they_stand(tmp_path: Path) -> None:
    failure = explain(DataError("Rows are missing."), tmp_path)

    assert (failure.message, failure.explained) == ("Rows are missing.", True)


def test_other_errors_are_named_by_their_first_line(tmp_path: Path) -> None:
    failure = explain(RuntimeError("shapes differ\nand more"), tmp_path)

    assert (failure.message, failure.explained) == ("RuntimeError: shapes differ", False)


def test_a_full_disk_is_told_as_such_whoever_met_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = explain(RuntimeError("I/O error: No space left on device (os error 28)"), tmp_path).message
    assert "is full; free some space and run the same command again" in message

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100, 100, 0))
    message = explain(RuntimeError("[enforce fail at inline_container.cc:668]"), tmp_path).message
    assert "is full" in message


def test_what_a_first_line_announces_is_told_with_it(tmp_path: Path) -> None:
    error = ValueError("Correct these values that differ:\n- betas=[0.9, 0.95] against (0.9, 0.999)\n- lr=1 against 2")

    assert explain(error, tmp_path).message == (
        "ValueError: Correct these values that differ: betas=[0.9, 0.95] against (0.9, 0.999); lr=1 against 2"
    )
