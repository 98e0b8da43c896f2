from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.unit.training.builders import dialogues, make_config, texts, write_dialogues
from tunegate.api.errors import UsageError
from tunegate.models import make_tiny
from tunegate.training import TrainConfig
from tunegate.training.launch.lifecycle import begin
from tunegate.training.run.checkpoints import seal


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    folder = tmp_path_factory.mktemp("begin")
    data = write_dialogues(folder / "data", dialogues(3))
    return make_config("", data, folder, model_name_or_path=str(make_tiny(folder / "model", texts())), store=None)


def test_an_attempt_that_kept_nothing_does_not_bind_the_next_one(config: TrainConfig, tmp_path: Path) -> None:
    for rate in (1e-3, 2e-3):
        assert not begin(replace(config, learning_rate=rate), tmp_path, 1, None).is_complete

    (tmp_path / "checkpoint-1").mkdir()
    seal(tmp_path / "checkpoint-1", step=1, total_steps=2, epoch=0.5, loss=1.0)
    with pytest.raises(UsageError, match=r"began with --learning_rate 0.002, not 0.001"):
        begin(replace(config, learning_rate=1e-3), tmp_path, 1, None)


def test_a_deepspeed_file_that_says_another_global_batch_is_refused(config: TrainConfig, tmp_path: Path) -> None:
    (tmp_path / "ds.json").write_text('{"train_batch_size": 8}')
    said = replace(config, deepspeed=str(tmp_path / "ds.json"))

    assert begin(said, tmp_path, 2, None)
    with pytest.raises(UsageError, match=r"says train_batch_size 8, but .* is 12"):
        begin(said, tmp_path, 3, None)
