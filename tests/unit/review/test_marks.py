"""The file of marks: what is in it stays, and what it half has was never promised."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import pytest

from tests.builders import START
from tests.unit.review.builders import make_mark
from tunegate.api.errors import DataError, EvaluationError
from tunegate.review.marks import Joined, MarkFile, latest, read

JOINED = Joined(reviewer="Li", code="0" * 64, time=START)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "marks.jsonl"


def write(path: Path, *lines: object) -> None:
    file = MarkFile(path)
    for line in lines:
        file.append(line)  # type: ignore[arg-type]
    file.close()


def test_marks_come_back_in_the_order_in_which_they_were_made(path: Path) -> None:
    first = make_mark("sha256:1", "Li", "tone", 2)
    changed = make_mark("sha256:1", "Li", "tone", 4, replaces=first.id, reason="misread")
    write(path, JOINED, first)
    write(path, changed)

    lines, _ = read(path)
    assert lines == [JOINED, first, changed]
    assert latest(lines) == {("sha256:1", "Li", "tone"): changed}
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_last_line_that_was_cut_off_is_dropped(path: Path) -> None:
    first, second = make_mark("sha256:1", "Li", "tone", 2), make_mark("sha256:2", "Li", "tone", 3)
    write(path, first)
    path.write_bytes(path.read_bytes() + b'{"kind":"mark","id":"torn')
    write(path, second)

    assert read(path)[0] == [first, second]


def test_another_line_that_can_not_be_read_is_named_and_not_guessed_at(path: Path) -> None:
    write(path, make_mark("sha256:1", "Li", "tone", 2))
    path.write_bytes(b"{}\n" + path.read_bytes())

    with pytest.raises(DataError, match=r"marks\.jsonl:1 is not a mark"):
        MarkFile(path)


def test_one_process_at_a_time_writes(path: Path) -> None:
    file = MarkFile(path)
    with pytest.raises(EvaluationError, match="open in another"):
        MarkFile(path)
    file.close()
    MarkFile(path).close()


def test_a_full_disk_is_said_and_leaves_nothing_of_the_mark(path: Path) -> None:
    first, second = make_mark("sha256:1", "Li", "tone", 2), make_mark("sha256:2", "Li", "tone", 3)
    file = MarkFile(path)
    file.append(first)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, hard))
        with pytest.raises(EvaluationError, match="nothing of this mark was kept"):
            file.append(second)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert read(path)[0] == file.lines == [first]
    file.append(second)
    file.close()
    assert read(path)[0] == [first, second]


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EvaluationError, match="can't be written"):
        MarkFile(tmp_path / "file" / "marks.jsonl")
    assert os.listdir(tmp_path) == ["file"]
