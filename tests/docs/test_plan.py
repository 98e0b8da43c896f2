"""The page about planning: its commands run, and say what it says they do."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from transformers import Qwen2Config

from tests.apiserver import REPOSITORY
from tunegate.api.errors import TrainingError
from tunegate.cli import root

PAGE = (REPOSITORY / "docs/plan.md").read_text()
TRAIN, SERVE = re.findall(r"^\$ tunegate (.*)$", PAGE, re.MULTILINE)


@pytest.fixture
def qwen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Qwen2Config:
    """The shape of Qwen2.5-7B, in the folder of the page's commands."""
    monkeypatch.chdir(tmp_path)
    sizes = {"hidden_size": 3584, "intermediate_size": 18_944, "num_hidden_layers": 28, "vocab_size": 152_064}
    shape = Qwen2Config(**sizes, num_attention_heads=28, num_key_value_heads=4, tie_word_embeddings=False)
    shape.save_pretrained("base")
    return shape


@pytest.mark.usefixtures("qwen")
def test_a_model_of_7_g_fits_on_8_cards_as_the_page_says() -> None:
    result = CliRunner().invoke(root, shlex.split(TRAIN))

    assert isinstance(result.exception, TrainingError)
    assert "each card needs 42.6 GiB, and A100 40GB leaves 36.6; ZeRO-3, layers recomputed does" in str(
        result.exception
    )
    assert re.search(r"ZeRO-3, layers recomputed +│ 32.1 +│ 5 ", result.output)
    assert "take 0.5 hours with ZeRO-3, layers recomputed, 6.54 at" in result.output


@pytest.mark.usefixtures("qwen")
def test_the_server_of_the_page_is_told() -> None:
    result = CliRunner().invoke(root, shlex.split(SERVE), catch_exceptions=False)

    assert "16 conversations of 2048 tokens on 2 of A10" in result.output
