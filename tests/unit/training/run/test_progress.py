from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunegate.training.run.layout import LOG
from tunegate.training.run.progress import Follower, Progress, append, clock, cut_log, read_log


def _progress(step: int) -> Progress:
    return Progress(
        current_steps=step,
        total_steps=9,
        loss=1 / step,
        lr=1e-3,
        epoch=step / 3,
        percentage=11.11 * step,
        elapsed_time=clock(step),
        remaining_time=clock(9 - step),
        tokens_per_second=100.0,
        padding=0.1,
    )


def test_a_line_has_llama_factorys_keys_then_ours(tmp_path: Path) -> None:
    append(tmp_path / LOG, _progress(1))

    line = json.loads((tmp_path / LOG).read_text())

    theirs = "current_steps total_steps loss lr epoch percentage elapsed_time remaining_time"
    assert list(line) == [*theirs.split(), "tokens_per_second", "padding"]


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00:00"), (59.6, "0:01:00"), (3723, "1:02:03"), (90_000, "25:00:00")]
)
def test_times_are_hours_minutes_and_seconds(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown


def test_what_comes_after_the_checkpoint_is_cut(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        append(tmp_path / LOG, _progress(step))

    cut_log(tmp_path, 2)

    assert read_log(tmp_path) == [_progress(1), _progress(2)]


def test_a_follower_reads_each_whole_line_once(tmp_path: Path) -> None:
    append(tmp_path / LOG, _progress(1))
    follower = Follower(tmp_path / LOG, Progress, from_end=True)
    append(tmp_path / LOG, _progress(2))
    with (tmp_path / LOG).open("ab") as stream:
        stream.write(b'{"current_')

    assert list(follower.new()) == [_progress(2)]
    assert list(follower.new()) == []


def test_a_run_that_logged_nothing_has_an_empty_log(tmp_path: Path) -> None:
    assert read_log(tmp_path) == []
    assert list(Follower(tmp_path / LOG, Progress).new()) == []
