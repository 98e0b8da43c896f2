from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.builders import make_version
from tunegate.api.errors import StoreError
from tunegate.api.versions import ModelVersion
from tunegate.training.checkpoints import Checkpoint, Publisher, complete_checkpoints, remove_incomplete, seal


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


def test_publishing_goes_on_beside_the_caller_one_at_a_time_in_order(tmp_path: Path) -> None:
    go, published = threading.Event(), []

    def publish(checkpoint: Checkpoint) -> ModelVersion:
        assert go.wait(60)
        published.append(checkpoint.step)
        return make_version("run", step=checkpoint.step)

    publisher = Publisher(publish)
    for step in (3, 6):
        publisher.submit(_seal(_write(tmp_path, step), step))
    assert published == []
    go.set()

    assert [version.name for version in publisher.close()] == ["shop/run/checkpoint-3", "shop/run/checkpoint-6"]
    assert published == [3, 6]


def test_a_failed_upload_is_told_at_the_end_and_does_not_keep_the_next_one_back(tmp_path: Path) -> None:
    published = []

    def publish(checkpoint: Checkpoint) -> ModelVersion:
        if checkpoint.step == 3:
            raise StoreError("it is full.")
        published.append(checkpoint.step)
        return make_version("run", step=checkpoint.step)

    publisher = Publisher(publish)
    for step in (3, 6):
        publisher.submit(_seal(_write(tmp_path, step), step))

    with pytest.raises(StoreError, match="it is full"):
        publisher.close()
    assert published == [6]
