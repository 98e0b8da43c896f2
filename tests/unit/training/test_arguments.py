from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.training.builders import make_config
from tunegate.api.errors import UsageError
from tunegate.training.arguments import arguments_of, check_config


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"run": "Run 1"}, "--run 'Run 1' can't be part of a version's name", id="name"),
        pytest.param({"dataset": ()}, "--dataset", id="no data set"),
        pytest.param({"nproc_per_node": 0}, "--nproc_per_node is 0; it must be at least 1", id="count"),
        pytest.param({"learning_rate": 0.0}, "--learning_rate is 0.0; it must be greater", id="rate"),
        pytest.param({"learning_rate": float("nan")}, "--learning_rate is nan", id="nan"),
        pytest.param({"warmup_ratio": 1.0}, "--warmup_ratio is 1.0", id="share"),
        pytest.param({"max_steps": 0}, "--max_steps is 0", id="steps"),
        pytest.param({"lr_scheduler_type": "cosin"}, "'cosin' is not one of: constant", id="schedule"),
        pytest.param({"template": "llama3"}, "no template 'llama3'", id="template"),
        pytest.param({"deepspeed": "/no/such/file.json"}, "can't be read: No such file", id="no file"),
    ],
)
def test_a_setting_that_can_not_work_is_named(tmp_path: Path, change: dict[str, object], said: str) -> None:
    check_config(make_config("s3://models", tmp_path, tmp_path))

    with pytest.raises(UsageError, match=said):
        check_config(make_config("s3://models", tmp_path, tmp_path, **change))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("[]", "is not a JSON object", id="not an object"),
        pytest.param('{"scheduler": {}}', "would replace --lr_scheduler_type", id="schedule"),
    ],
)
def test_a_deepspeed_file_that_can_not_work_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "ds.json").write_text(text)

    with pytest.raises(UsageError, match=said):
        check_config(make_config("s3://models", tmp_path, tmp_path, deepspeed=str(tmp_path / "ds.json")))


def test_places_and_what_is_shown_are_not_part_of_a_run(tmp_path: Path) -> None:
    one = make_config("s3://models", tmp_path, tmp_path)
    other = make_config("s3://models/x", tmp_path / "data", tmp_path / "out", logging_steps=9, endpoint_url="http://x")

    assert arguments_of(one) == arguments_of(other)


def test_the_contents_of_the_deepspeed_file_are_part_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "ds.json").write_text('{"zero_optimization": {"stage": 1}}')

    changed = make_config("s3://models", tmp_path, tmp_path, deepspeed=str(tmp_path / "ds.json"))

    assert arguments_of(changed)["deepspeed"] == {"zero_optimization": {"stage": 1}}
    assert arguments_of(changed) != arguments_of(make_config("s3://models", tmp_path, tmp_path))
