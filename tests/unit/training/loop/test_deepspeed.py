"""The configurations that we ship train, on a machine without a compiler."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.training.alone import make_shop, train_alone
from tests.unit.training.builders import make_config
from tunegate.training.config import ZERO2, check_config
from tunegate.training.run.progress import read_log

# What DeepSpeed, accelerate, peft and torch think of one another's names.
pytestmark = [pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("DeprecationWarning", "FutureWarning")]
SHIPPED = Path(__file__).parents[4] / "pipelines" / "deepspeed"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shop(tmp_path_factory.mktemp("deepspeed"), 12)


@pytest.mark.parametrize("path", sorted(SHIPPED.iterdir()), ids=lambda path: path.stem)
def test_a_shipped_configuration_trains_without_a_compiler(
    path: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = str(folder / "model")
    config = make_config(
        None, folder / "data", tmp_path / "run", model_name_or_path=model, deepspeed=str(path), num_train_epochs=1
    )
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "nothing built before"))

    check_config(config)
    train_alone(config)

    losses = [step.loss for step in read_log(tmp_path / "run")]
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    assert not (tmp_path / "nothing built before").exists()


def test_without_a_file_it_is_the_shipped_second_stage() -> None:
    assert ZERO2.read_bytes() == (SHIPPED / "zero2.json").read_bytes()
