from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.unit.training.builders import dialogues, make_config, texts, write_dialogues
from tunegate.api.errors import UsageError
from tunegate.models import make_tiny
from tunegate.training import TrainConfig
from tunegate.training.launch.lifecycle import begin
from tunegate.training.run.checkpoints import begin_checkpoint, complete_checkpoints, seal
from tunegate.training.run.layout import STOP
from tunegate.training.run.plan import read_record


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    folder = tmp_path_factory.mktemp("begin")
    data = write_dialogues(folder / "data", dialogues(3))
    return make_config("", data, folder, model_name_or_path=str(make_tiny(folder / "model", texts())), store=None)


def test_an_attempt_that_kept_nothing_does_not_bind_the_next_one(config: TrainConfig, tmp_path: Path) -> None:
    for rate in (1e-3, 2e-3):
        assert not begin(replace(config, learning_rate=rate), tmp_path, 1, None).is_complete

    begin_checkpoint(tmp_path, 1)
    seal(tmp_path / "checkpoint-1", step=1, total_steps=2, epoch=0.5, loss=1.0)
    with pytest.raises(UsageError, match=r"began with --learning_rate 0.002, not 0.001"):
        begin(replace(config, learning_rate=1e-3), tmp_path, 1, None)


def test_a_wish_to_stop_that_an_earlier_attempt_left_is_forgotten(config: TrainConfig, tmp_path: Path) -> None:
    begin(config, tmp_path, 1, None)
    (tmp_path / STOP).touch()

    begin(config, tmp_path, 1, None)

    assert not (tmp_path / STOP).exists()


def test_a_deepspeed_file_that_says_another_global_batch_is_refused(config: TrainConfig, tmp_path: Path) -> None:
    (tmp_path / "ds.json").write_text('{"train_batch_size": 8}')
    said = replace(config, deepspeed=str(tmp_path / "ds.json"))

    assert begin(said, tmp_path, 2, None)
    with pytest.raises(UsageError, match=r"says train_batch_size 8, but .* is 12"):
        begin(said, tmp_path, 3, None)


@pytest.mark.parametrize("is_whole", [True, False], ids=["whole", "damaged"])
def test_a_checkpoint_of_another_run_is_neither_resumed_from_nor_removed(
    config: TrainConfig, tmp_path: Path, is_whole: bool
) -> None:
    ours, other = tmp_path / "ours", tmp_path / "other"
    for folder, rate in ((ours, 1e-3), (other, 2e-3)):
        folder.mkdir()
        begin(replace(config, learning_rate=rate), folder, 1, None)
    record = read_record(other)
    assert record is not None
    copied = begin_checkpoint(ours, 1)
    (copied / "model.safetensors").write_text("weights")
    seal(copied, step=1, total_steps=2, epoch=0.5, loss=1.0, run=record.identity)
    if not is_whole:
        (copied / "model.safetensors").write_text("w")

    with pytest.raises(UsageError, match=r"checkpoint-1 .* another run .*give a new --output_dir, or move it away"):
        begin(config, ours, 1, None)

    assert (copied / "model.safetensors").is_file()


def test_a_run_resumes_from_its_own_checkpoint_and_from_one_that_names_no_run(
    config: TrainConfig, tmp_path: Path
) -> None:
    begin(config, tmp_path, 2, None)
    record = read_record(tmp_path)
    assert record is not None
    for step, run in ((1, ""), (2, record.identity)):  # tunegate 0.1.0 named none
        seal(begin_checkpoint(tmp_path, step), step=step, total_steps=3, epoch=0.5, loss=1.0, run=run)

    begin(config, tmp_path, 1, None)

    assert [checkpoint.step for checkpoint in complete_checkpoints(tmp_path)] == [1, 2]


def _write_all(folder: Path, *names: str) -> dict[str, str]:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"somebody else's {name}")
    return _read_all(folder)


def _read_all(folder: Path) -> dict[str, str]:
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path.relative_to(folder).as_posix(): path.read_text() for path in paths}


@pytest.mark.parametrize(
    ("names", "named"),
    [
        pytest.param(
            ["checkpoint-500/model.safetensors", "checkpoint-500/trainer_state.json", "checkpoint-best/optimizer.pt"],
            "checkpoint-500, checkpoint-best",
            id="transformers",
        ),
        pytest.param(
            ["checkpoint-7/global_step7/mp_rank_00_model_states.pt", "checkpoint-7/latest"],
            "checkpoint-7",
            id="DeepSpeed",
        ),
        pytest.param(["checkpoint-7"], "checkpoint-7", id="a file"),
        pytest.param(["adapter_config.json", "adapter_model.safetensors"], "adapter_config.json", id="an adapter"),
        pytest.param(["config.json", "model-00001-of-00002.safetensors"], "config.json, model-0", id="a model"),
        pytest.param(["trainer_log.jsonl"], "trainer_log.jsonl", id="LLaMA-Factory's log"),
        pytest.param(["trainer_state.json"], "trainer_state.json", id="state"),
        pytest.param(["stop", "plan.json", "failure-0.json"], "failure-0.json, plan.json, stop", id="names of ours"),
        pytest.param(
            [f"checkpoint-{step}/model.bin" for step in (1, 2, 3, 4, 5)], "checkpoint-3 and 2 more", id="many"
        ),
    ],
)
def test_a_folder_with_what_another_trainer_wrote_is_refused_and_stays_as_it_is(
    config: TrainConfig, tmp_path: Path, names: list[str], named: str
) -> None:
    before = _write_all(tmp_path, *names)

    with pytest.raises(UsageError, match=rf"{named}.*give a new --output_dir"):
        begin(config, tmp_path, 1, None)

    assert _read_all(tmp_path) == before


def test_what_another_trainer_wrote_into_the_folder_of_a_run_stays(config: TrainConfig, tmp_path: Path) -> None:
    begin(config, tmp_path, 1, None)
    before = _write_all(tmp_path, "checkpoint-500/model.safetensors")

    with pytest.raises(UsageError, match=r"checkpoint-500.*give a new --output_dir"):
        begin(config, tmp_path, 1, None)

    assert _read_all(tmp_path) == before


def test_checkpoints_that_no_record_of_a_run_lies_beside_are_not_resumed_from(
    config: TrainConfig, tmp_path: Path
) -> None:
    begin_checkpoint(tmp_path, 1)
    seal(tmp_path / "checkpoint-1", step=1, total_steps=2, epoch=0.5, loss=1.0)

    with pytest.raises(UsageError, match=r"checkpoint-1.*give a new --output_dir"):
        begin(config, tmp_path, 1, None)


def test_what_lies_in_the_folder_and_is_in_nobodys_way_stays(config: TrainConfig, tmp_path: Path) -> None:
    before = _write_all(tmp_path, "notes.txt", "checkpoint-list.txt", "train.log", "data/config.json")

    begin(config, tmp_path, 1, None)
    begin(config, tmp_path, 1, None)

    assert {name: text for name, text in _read_all(tmp_path).items() if name in before} == before
