from __future__ import annotations

from pathlib import Path

import pytest

from tunegate.training.run.checkpoints import Checkpoint, complete_checkpoints, remove_incomplete, remove_surplus, seal


def _write(output: Path, step: int) -> Path:
    """What the Trainer leaves behind after a save."""
    folder = output / f"checkpoint-{step}"
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

    remove_incomplete(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-3"]


@pytest.mark.parametrize(("keep", "left"), [(None, [3, 6, 9]), (3, [3, 6, 9]), (2, [6, 9]), (1, [9])])
def test_older_checkpoints_make_room(keep: int | None, left: list[int], tmp_path: Path) -> None:
    checkpoints = [_seal(_write(tmp_path, step), step) for step in (3, 6, 9)]

    remove_surplus(checkpoints, keep)

    assert [checkpoint.step for checkpoint in complete_checkpoints(tmp_path)] == left
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"checkpoint-{step}" for step in left]
