from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.unit.training.builders import dialogues, texts, write_dialogues
from tunegate.api.errors import DataError, UsageError
from tunegate.cli import root
from tunegate.models import make_tiny
from tunegate.store import EmbeddedStore


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny") / "model", texts())


@pytest.fixture
def flags(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Those of a run over 20 records, of which 2 can't be used."""
    monkeypatch.setenv("TUNEGATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TUNEGATE_STORE", raising=False)
    data = write_dialogues(tmp_path / "data", dialogues(18))
    with (data / "shop.jsonl").open("a") as file:
        file.write('{\n{"messages": []}\n')
    return ["--model_name_or_path", str(model), "--dataset_dir", str(data), "--dataset", "shop", "--max_rejected", ".5"]


def _run(*words: str) -> str:
    result = CliRunner().invoke(root, ["data", "prepare", *words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_store_of_the_environment_asks_for_no_name_of_a_run(
    flags: list[str], embedded_store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in embedded_store.environment.items():
        monkeypatch.setenv(name, value)

    assert "18 examples are trained on" in _run(*flags)


def test_the_account_of_a_data_set_is_shown(flags: list[str], tmp_path: Path) -> None:
    output = _run(*flags, "--learning_rate", "2e-6", "--rejects", str(tmp_path / "rejects.jsonl"))

    assert "shop  20 records read" in output
    assert "NotJson" in output
    assert "NotInTurn" in output
    assert "18 examples are trained on, 0 are the validation split; padding" in output
    lines = (tmp_path / "rejects.jsonl").read_text().splitlines()
    assert [json.loads(line)["line"] for line in lines] == [19, 20]


def test_the_account_is_json_for_scripts(flags: list[str]) -> None:
    account = json.loads(_run(*flags, "--val_size", "3", "--json"))

    assert (account["trainExamples"], account["validationExamples"]) == (15, 3)
    (shop,) = account["datasets"]
    assert shop["examples"] == 18
    assert {reason: rejects["count"] for reason, rejects in shop["rejected"].items()} == {"NotJson": 1, "NotInTurn": 1}
    assert shop["rejected"]["NotInTurn"]["first"]["line"] == 20


def test_a_file_of_settings_is_taken_as_train_takes_it(flags: list[str], tmp_path: Path) -> None:
    names, values = (flags[start::2] for start in (0, 1))
    settings = {name[2:]: value for name, value in zip(names, values, strict=True)}
    (tmp_path / "sft.json").write_text(json.dumps({**settings, "output_dir": "out"}))

    assert "18 examples are trained on" in _run(str(tmp_path / "sft.json"))


def test_the_tokens_are_there_for_the_run(flags: list[str]) -> None:
    _run(*flags)

    assert "records read" not in _run(*flags, "--learning_rate", "1e-3", "--output_dir", "elsewhere")


def test_what_a_run_would_refuse_is_refused(flags: list[str]) -> None:
    with pytest.raises(DataError, match="2 of 20 records were rejected"):
        _run(*flags, "--max_rejected", "0.01")
    with pytest.raises(UsageError, match="--cutoff_len"):
        _run(*flags, "--cutoff_len", "1")
