from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from transformers import Qwen2Config

from tunegate.api.errors import TrainingError, UsageError
from tunegate.cli import root


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 0.3 G parameters without its weights: its config.json is all there is."""
    folder = tmp_path_factory.mktemp("shape")
    shape = {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 16, "vocab_size": 40_000}
    config = Qwen2Config(**shape, num_attention_heads=16, num_key_value_heads=8, tie_word_embeddings=False)
    config.architectures = ["Qwen2ForCausalLM"]
    config.save_pretrained(folder)
    return folder


def _plan(*words: str) -> str:
    result = CliRunner().invoke(root, ["plan", *words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_run_that_fits_is_told_with_its_hours_and_their_price(model: Path, tmp_path: Path) -> None:
    (tmp_path / "sft.yaml").write_text(f"model_name_or_path: {model}\nfinetuning_type: full\ncutoff_len: 512\n")
    settings = (str(tmp_path / "sft.yaml"), "--per_device_train_batch_size", "2")

    output = _plan("train", "--card", "A100", "--cards", "4", "--tokens", "1000000000", "--price", "2", *settings)

    assert "0.271 G parameters, 0.271 G of them trained" in " ".join(output.split())
    assert "ZeRO-2, layers recomputed" in output
    assert "3,000,000,000 tokens take" in output
    assert "at 2 for a card's hour" in output


def test_a_run_that_does_not_fit_is_refused_with_what_does(model: Path) -> None:
    run = ["--model_name_or_path", str(model), "--finetuning_type", "full", "--cutoff_len", "512"]
    with pytest.raises(TrainingError, match=r"needs 1.6 GiB, and 3GiB leaves 1.4; ZeRO-3, .* recomputed does"):
        _plan("train", "--card", "3GiB", "--cards", "8", *run, "--per_device_train_batch_size", "1")
    with pytest.raises(TrainingError, match="give more cards, a smaller --per_device_train_batch_size"):
        _plan("train", "--card", "2GiB", *run)


def test_a_plan_is_json_for_scripts(model: Path) -> None:
    asked, *others = json.loads(_plan("train", "--card", "24GiB", "--json", "--model_name_or_path", str(model)))

    assert asked["fits"] is True
    assert asked["tokens_per_second"] is None, "nobody knows how fast such a card is"
    assert {other["setting"]["zero"]["stage"] for other in others} == {2, 3}


def test_a_server_is_told_by_how_it_is_spread_and_rounded(model: Path) -> None:
    found = json.loads(_plan("serve", str(model), "--card", "A10", "--cards", "4", "--json"))

    assert [server["tensor_parallel"] for server in found] == [1, 2, 4] * 4
    holds = {(server["quantization"], server["tensor_parallel"]): server["streams"] for server in found}
    assert holds["int4", 1] > holds["int8", 1] > holds["none", 1]
    paces = [server["tokens_per_second"] for server in found if server["quantization"] == "none"]
    assert paces == sorted(paces)
    assert "16 conversations of 2048 tokens on 4 of A10 (22.5 GiB)" in _plan(
        "serve", str(model), "--card", "A10", "--cards", "4", "--price", "1"
    )


def test_what_can_not_be_served_or_read_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"Nothing holds 16 conversations of 2048 tokens on 1 of 2GiB; give more --card"
    ):
        _plan("serve", str(model), "--card", "2GiB")
    with pytest.raises(UsageError, match=r"is no folder with a config\.json; put the model's there"):
        _plan("serve", str(tmp_path), "--card", "A10")
