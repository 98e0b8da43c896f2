from __future__ import annotations

from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.unit.models.conftest import TEXTS
from tunegate.models import check_folder, make_tiny


def test_the_same_texts_and_seed_give_the_same_bytes(tiny: Path, tmp_path: Path) -> None:
    again = make_tiny(tmp_path / "again", TEXTS)

    assert {path.name: path.read_bytes() for path in again.iterdir()} == {
        path.name: path.read_bytes() for path in tiny.iterdir()
    }


def test_another_seed_gives_other_weights(tiny: Path, tmp_path: Path) -> None:
    other = make_tiny(tmp_path / "other", TEXTS, seed=1)

    assert (other / "model.safetensors").read_bytes() != (tiny / "model.safetensors").read_bytes()


def test_a_tiny_model_is_a_complete_folder_of_less_than_a_million_parameters(tiny: Path) -> None:
    check_folder(tiny)

    model = AutoModelForCausalLM.from_pretrained(tiny)
    assert 500_000 < model.num_parameters() < 1_000_000
    assert model.generation_config.do_sample is False


def test_text_comes_back_from_its_tokens_with_each_digit_alone(tiny: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    text = "Wie viel kostet 水壶 1299? <|im_end|>\n"

    tokens = tokenizer(text)["input_ids"]

    assert tokenizer.decode(tokens) == text
    assert [tokenizer.decode([token]) for token in tokens].count("9") == 2
    assert tokens.count(tokenizer.eos_token_id) == 1
