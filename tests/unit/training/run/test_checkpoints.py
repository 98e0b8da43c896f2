from __future__ import annotations

from pathlib import Path

import pytest

from tunegate.api.errors import TrainingError
from tunegate.training.run.checkpoints import (
    Checkpoint,
    begin_checkpoint,
    complete_checkpoints,
    remove_incomplete,
    remove_surplus,
    seal,
)
from tunegate.training.run.layout import foreign_checkpoints


def _write(output: Path, step: int) -> Path:
    """What the Trainer leaves behind after a save."""
    folder = begin_checkpoint(output, step)
    state = folder / f"global_step{step}"
    state.mkdir(parents=True)
    for name in ("model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja", "generation_config.json"):
        (folder / name).write_text(name)
    for name in ("latest", "trainer_state.json", "rng_state_0.pth", "README.md", "training_args.bin"):
        (folder / name).write_text(name)
    (state / "mp_rank_00_model_states.pt").write_text("state")
    return folder


def _seal(folder: Path, step: int) -> Checkpoint:
    return seal(folder, step=step, total_steps=6, epoch=1.0, loss=0.5)


def test_a_sealed_checkpoint_serves_from_its_folder_and_resumes_from_below(tmp_path: Path) -> None:
    checkpoint = _seal(_write(tmp_path, 3), 3)

    served = {path.name for path in checkpoint.folder.iterdir()}
    assert served == {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "chat_template.jinja",
        "generation_config.json",
        "resume",
    }
    below = {path.relative_to(checkpoint.resume).as_posix() for path in checkpoint.resume.rglob("*") if path.is_file()}
    assert below == {
        "complete.json",
        "latest",
        "trainer_state.json",
        "rng_state_0.pth",
        "global_step3/mp_rank_00_model_states.pt",
    }


def test_only_checkpoints_with_every_file_are_complete_and_the_newest_comes_last(tmp_path: Path) -> None:
    for step in (12, 3, 6, 9):
        _seal(_write(tmp_path, step), step)
    (tmp_path / "checkpoint-9" / "resume" / "latest").unlink()
    (tmp_path / "checkpoint-12" / "model.safetensors").write_text("cut")
    _write(tmp_path, 15)

    assert [checkpoint.step for checkpoint in complete_checkpoints(tmp_path)] == [3, 6]
    assert [checkpoint.is_last for checkpoint in complete_checkpoints(tmp_path)] == [False, True]


def test_what_a_killed_run_left_half_written_is_removed(tmp_path: Path) -> None:
    _seal(_write(tmp_path, 3), 3)
    _write(tmp_path, 6)
    begin_checkpoint(tmp_path, 9)
    _seal(_write(tmp_path, 12), 12)
    (tmp_path / "checkpoint-12" / "model.safetensors").write_text("cut")
    (tmp_path / ".checkpoint-2.partial" / "resume").mkdir(parents=True)  # a removal that was cut short

    remove_incomplete(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-3"]


def test_what_another_trainer_wrote_is_neither_a_checkpoint_nor_removed(tmp_path: Path) -> None:
    _seal(_write(tmp_path, 3), 3)
    _write(tmp_path, 6)
    for name in ("checkpoint-500", "checkpoint-best"):
        (tmp_path / name / "resume").mkdir(parents=True)
        (tmp_path / name / "trainer_state.json").write_text('{"global_step": 500}')
    (tmp_path / "checkpoint-list.txt").write_text("500, best")
    (tmp_path / "checkpoint-9.partial").mkdir()  # on its way from the store

    assert [checkpoint.step for checkpoint in complete_checkpoints(tmp_path)] == [3]
    assert foreign_checkpoints(tmp_path) == ["checkpoint-500", "checkpoint-best"]
    remove_incomplete(tmp_path)

    left = {"checkpoint-3", "checkpoint-500", "checkpoint-best", "checkpoint-list.txt", "checkpoint-9.partial"}
    assert {path.name for path in tmp_path.iterdir()} == left


def test_a_checkpoint_is_not_written_over_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-3").mkdir()
    (tmp_path / "checkpoint-3" / "model.safetensors").write_text("somebody else's")

    with pytest.raises(TrainingError, match=r"checkpoint-3 .*did not write.*give a new --output_dir"):
        begin_checkpoint(tmp_path, 3)

    assert (tmp_path / "checkpoint-3" / "model.safetensors").read_text() == "somebody else's"


@pytest.mark.parametrize(("keep", "left"), [(None, [3, 6, 9]), (3, [3, 6, 9]), (2, [6, 9]), (1, [9])])
def test_older_checkpoints_make_room(keep: int | None, left: list[int], tmp_path: Path) -> None:
    checkpoints = [_seal(_write(tmp_path, step), step) for step in (3, 6, 9)]

    remove_surplus(checkpoints, keep)

    assert [checkpoint.step for checkpoint in complete_checkpoints(tmp_path)] == left
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"checkpoint-{step}" for step in left]
