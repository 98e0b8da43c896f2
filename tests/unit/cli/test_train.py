from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from tests.builders import make_version
from tunegate import training
from tunegate.cli.train import command
from tunegate.training import Progress, TrainConfig

NEEDED = ["--model", "shop", "--run", "r1", "--dataset", "a, b", "--store", "s3://models"]
UNDERSCORES = ["--model_name_or_path", "base", "--dataset_dir", "d", "--output_dir", "o", "--learning_rate", "2e-6"]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[TrainConfig]:
    """The runs that were asked for, instead of running them."""
    configs: list[TrainConfig] = []

    def train(config: TrainConfig, report: Any = None) -> Any:
        configs.append(config)
        version = make_version("r1")
        if report:
            numbers = {"epoch": 0.5, "loss": 1.25, "learning_rate": 1e-3, "padding": 0.1, "elapsed_seconds": 9.0}
            report(
                Progress(current_steps=5, total_steps=10, tokens_per_second=512.4, remaining_seconds=75.2, **numbers)
            )
            report(version)
        return [version]

    monkeypatch.setattr(training, "train", train)
    return configs


def test_underscores_and_dashes_mean_the_same(asked: list[TrainConfig]) -> None:
    dashes = [word.replace("_", "-") if word.startswith("--") else word for word in UNDERSCORES]
    for words in (UNDERSCORES, dashes):
        result = CliRunner().invoke(command, [*words, *NEEDED])
        assert result.exit_code == 0, result.output

    assert asked[0] == asked[1]
    assert asked[0].dataset == ("a", "b")
    assert asked[0].learning_rate == 2e-6
    assert asked[0].store == "s3://models"


def test_options_left_out_mean_what_the_library_means(asked: list[TrainConfig]) -> None:
    CliRunner().invoke(command, [*UNDERSCORES[:6], *NEEDED])

    places = {"model_name_or_path": "base", "dataset_dir": "d", "output_dir": "o"}
    assert asked == [TrainConfig(**places, dataset=("a", "b"), model="shop", run="r1", store="s3://models")]


def test_progress_is_one_line_a_step_and_versions_are_named(asked: list[TrainConfig]) -> None:
    result = CliRunner().invoke(command, [*UNDERSCORES, *NEEDED])

    assert "step 5/10  epoch 0.50  loss 1.2500  512 tokens/s  1:15 left" in result.stdout
    assert "published shop/r1/checkpoint-10  sha256:" in result.stdout
    assert "1 versions, the newest is shop/r1/checkpoint-10" in result.stdout


def test_json_is_the_versions_and_nothing_else(asked: list[TrainConfig]) -> None:
    result = CliRunner().invoke(command, [*UNDERSCORES, *NEEDED, "--json"])

    assert [version["name"] for version in json.loads(result.stdout)] == ["shop/r1/checkpoint-10"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(["--learning_rat", "1"], "--learning_rat", id="misspelt"),
        pytest.param(["--learning_rate", "fast"], "'fast' is not a valid float", id="no number"),
        pytest.param(["--finetuning_type", "freeze"], "'lora', 'full'", id="no such method"),
    ],
)
def test_wrong_words_are_usage_errors(asked: list[TrainConfig], words: list[str], said: str) -> None:
    result = CliRunner().invoke(command, [*UNDERSCORES, *NEEDED, *words])

    assert result.exit_code == 2
    assert said in result.output
    assert not asked
