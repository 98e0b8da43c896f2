"""What was answered is on the disk, and only what was asked the same way counts."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tunegate.api.errors import EvaluationError
from tunegate.evaluation.sheets import Sheet, Sheets

QUESTIONS = ["one?", "two?", "three?"]


def begin(path: Path, *, tokens: int = 8, done: list[int] | None = None) -> tuple[Sheets, Sheet]:
    sheets = Sheets(path, (done if done is not None else []).append)
    return sheets, sheets.sheet("answer", tokens, questions=QUESTIONS)


def test_what_is_answered_is_there_again(tmp_path: Path) -> None:
    path, done = tmp_path / "cache" / "answers.jsonl", list[int]()
    _, sheet = begin(path, done=done)
    assert sheet.lacks([0, 1, 2])
    sheet.put({0: "1", 2: None})
    _, again = begin(path, done=done)
    assert (again.lacks([0]), again.lacks([2]), again.lacks([0, 1])) == (False, False, True)
    again.put({1: "2"})
    assert again.answers() == ["1", "2", None]
    assert done == [2, 2, 1]


def test_a_question_that_is_asked_otherwise_is_another_one(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    begin(path)[1].put({0: "1"})
    assert begin(path, tokens=9)[1].lacks([0])


def test_a_line_that_was_cut_off_is_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    begin(path)[1].put({0: "1", 1: "2"})
    path.write_bytes(path.read_bytes()[:-3])
    _, sheet = begin(path)
    assert (sheet.lacks([0]), sheet.lacks([1])) == (False, True)
    sheet.put({1: "2", 2: "3"})
    assert begin(path)[1].answers() == ["1", "2", "3"]


def test_what_is_kept_elsewhere_is_removed(tmp_path: Path) -> None:
    sheets, sheet = begin(tmp_path / "answers.jsonl")
    sheet.put({0: "1"})
    sheets.close()
    assert not list(tmp_path.iterdir())


def test_answers_outlive_a_process_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from tunegate.evaluation.sheets import Sheets\n"
        "sheets = Sheets(Path(sys.argv[1]), lambda more: None)\n"
        "sheet = sheets.sheet('answer', 8, questions=['one?', 'two?', 'three?'])\n"
        "sheet.put({0: '1'}); os.kill(os.getpid(), signal.SIGKILL)"
    )
    path = tmp_path / "answers.jsonl"
    assert subprocess.run([sys.executable, "-c", code, path], check=False).returncode == -signal.SIGKILL
    assert not begin(path)[1].lacks([0])


def test_a_disk_that_refuses_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EvaluationError, match=r"can't be written.*TUNEGATE_CACHE"):
        begin(tmp_path / "file" / "answers.jsonl")[1].put({0: "1"})
