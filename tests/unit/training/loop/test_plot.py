from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from tunegate.training.loop.plot import draw, smoothed
from tunegate.training.run.curve import Point


def _history(steps: int, *, held_out: bool = False) -> list[dict[str, Any]]:
    """As the Trainer keeps it, with its own summary at the end."""
    logged = [{"step": step, "loss": 3 / step, "learning_rate": 1e-3 / step} for step in range(1, steps + 1)]
    looks = [{"step": steps, "eval_loss": 1.0}] if held_out else []
    return [*logged, *looks, {"step": steps, "train_runtime": 2.0}]


@pytest.mark.parametrize("steps", [0, 1, 3, 200])
def test_a_run_of_any_length_gets_a_picture(tmp_path: Path, steps: int) -> None:
    draw(_history(steps), tmp_path / "loss.png")

    assert imread(tmp_path / "loss.png").shape == (450, 800, 4)
    assert (tmp_path / "loss.png").stat().st_size < 200_000


def test_the_loss_on_held_out_rows_is_shown_in_orange(tmp_path: Path) -> None:
    def orange(path: Path) -> int:
        red, green, blue = (imread(path)[:, :, channel] for channel in range(3))
        return int(np.count_nonzero((red > 0.9) & (green > 0.4) & (green < 0.6) & (blue < 0.2)))

    draw(_history(9), tmp_path / "without.png")
    draw(_history(9, held_out=True), tmp_path / "with.png")

    assert orange(tmp_path / "without.png") == 0
    assert orange(tmp_path / "with.png") > 50


def test_the_same_run_gets_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        draw(_history(9), tmp_path / name)

    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_smoothing_keeps_a_level_from_its_first_point_on() -> None:
    assert smoothed([2.0] * 5) == pytest.approx([2.0] * 5)
    assert smoothed([4.0, 0.0], memory=0.5) == pytest.approx([4.0, 4 / 3])


def test_what_checkpoints_were_measured_at_is_drawn_below_at_the_same_steps(tmp_path: Path) -> None:
    points = [Point(step=step, suite="shop-en", metric="score", value=step / 10, low=0, high=1) for step in (3, 6, 9)]
    points += [Point(step=9, suite="shop-zh", metric="score", value=0.4)]
    for name in ("one.png", "two.png"):
        draw(_history(9), tmp_path / name, points)

    picture = imread(tmp_path / "one.png")
    assert picture.shape == (750, 800, 4)
    green = (picture[:, :, 1] > 0.55) & (picture[:, :, 0] < 0.25) & (picture[:, :, 2] < 0.25)
    assert np.count_nonzero(green[:450]) == 0, "nothing of it in the loss"
    assert np.count_nonzero(green[450:]) > 50
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
