from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.training.alone import train_alone
from tests.unit.training.builders import dialogues, make_config, texts, write_dialogues
from tunegate.api.codec import to_json
from tunegate.api.versions import Cost
from tunegate.models import make_tiny
from tunegate.training import TrainConfig
from tunegate.training.loop.plot import draw
from tunegate.training.run.checkpoints import complete_checkpoints
from tunegate.training.run.layout import MARKER, PICTURE, UNFINISHED, cost_path
from tunegate.training.run.progress import read_log

# What DeepSpeed, accelerate, peft and torch think of one another's names.
pytestmark = [pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("DeprecationWarning", "FutureWarning")]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """Four epochs of three steps: logged at every fifth step, and looked at held-out rows, with each checkpoint."""
    folder = tmp_path_factory.mktemp("record")
    config = make_config(
        None,
        write_dialogues(folder / "data", dialogues(13)),
        folder / "run",
        model_name_or_path=str(make_tiny(folder / "model", texts())),
        finetuning_type="lora",
        val_size=1,
        nproc_per_node=1,
        logging_steps=5,
    )
    train_alone(config)
    return config


def test_each_checkpoint_has_its_own_loss_whatever_the_logging_steps(run: TrainConfig) -> None:
    steps = [step for step in read_log(Path(run.output_dir)) if step.loss is not None]

    assert [step.current_steps for step in steps] == [3, 5, 6, 9, 10, 12]
    losses = {step.current_steps: step.loss for step in steps}
    checkpoints = complete_checkpoints(Path(run.output_dir))
    assert [(one.step, one.marker.loss) for one in checkpoints] == [(step, losses[step]) for step in (3, 6, 9, 12)]


def test_a_line_tells_how_far_and_how_fast(run: TrainConfig) -> None:
    step = next(step for step in read_log(Path(run.output_dir)) if step.current_steps == 6)

    assert (step.total_steps, step.epoch, step.percentage) == (12, 2.0, 50.0)
    assert step.tokens_per_second is not None
    assert step.tokens_per_second > 0
    assert step.padding is not None
    assert 0 <= step.padding < 0.5
    assert step.mfu is not None
    assert 0 < step.mfu < 1


def test_a_line_tells_the_memory_that_was_expected_and_taken(run: TrainConfig) -> None:
    steps = read_log(Path(run.output_dir))
    taken = [step.process_memory_bytes or 0 for step in steps]

    assert taken == sorted(taken), "a peak never falls"
    assert {step.gpu_memory_bytes for step in steps} == {None}
    assert len({step.planned_memory_bytes for step in steps}) == 1
    assert (steps[0].planned_memory_bytes or 0) > 4 * 636_160  # its weights in float32


def test_held_out_rows_have_a_line_of_their_own(run: TrainConfig) -> None:
    looks = [step for step in read_log(Path(run.output_dir)) if step.eval_loss is not None]

    assert [look.current_steps for look in looks] == [3, 6, 9, 12]
    assert {(look.loss, look.tokens_per_second) for look in looks} == {(None, None)}


def test_the_picture_is_served_with_the_checkpoint_and_the_newest_lies_beside_them(
    run: TrainConfig, tmp_path: Path
) -> None:
    checkpoints = complete_checkpoints(Path(run.output_dir))
    pictures = [(one.folder / PICTURE).read_bytes() for one in checkpoints]

    for one, picture in zip(checkpoints, pictures, strict=True):
        draw(json.loads((one.resume / "trainer_state.json").read_text())["log_history"], tmp_path / PICTURE)
        assert picture == (tmp_path / PICTURE).read_bytes()
    assert len(set(pictures)) == len(pictures)
    assert all(PICTURE in one.marker.files for one in checkpoints)
    assert (Path(run.output_dir) / PICTURE).read_bytes() == pictures[-1]


def test_a_checkpoint_notes_what_methods_are_compared_by(run: TrainConfig) -> None:
    costs = [one.cost for one in complete_checkpoints(Path(run.output_dir))]

    assert all(0 < cost.trainable_parameters < cost.parameters for cost in costs)
    assert all(cost.peak_memory_bytes > 10_000_000 for cost in costs)
    seconds = [cost.seconds for cost in costs]
    assert seconds == sorted(seconds)


def test_time_goes_on_where_a_run_goes_on(run: TrainConfig) -> None:
    checkpoints = complete_checkpoints(Path(run.output_dir))
    second, last = checkpoints[1], checkpoints[-1]
    picture = (last.folder / PICTURE).read_bytes()
    for one in checkpoints[2:]:
        (one.resume / MARKER).rename(one.resume / UNFINISHED)
    cost_path(second.folder).write_bytes(to_json(Cost(seconds=1000.0)))

    train_alone(run)

    again = complete_checkpoints(Path(run.output_dir))[-1]
    assert again.step == last.step
    assert again.cost.seconds > 1000
    assert again.marker.loss == last.marker.loss
    assert [step.current_steps for step in read_log(Path(run.output_dir)) if step.loss is not None][-3:] == [9, 10, 12]
    assert (again.folder / PICTURE).read_bytes() == picture
