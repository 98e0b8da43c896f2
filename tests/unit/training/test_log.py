from __future__ import annotations

from pathlib import Path

from tunegate.training.log import LOG, Follower, Progress, append, cut_log, read_log


def _progress(step: int) -> Progress:
    return Progress(
        current_steps=step,
        total_steps=9,
        epoch=step / 3,
        loss=1 / step,
        learning_rate=1e-3,
        tokens_per_second=100.0,
        padding=0.1,
        elapsed_seconds=float(step),
        remaining_seconds=9.0 - step,
    )


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
