from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from tunegate.api.errors import UsageError
from tunegate.models.templates import load_template, template_of

DEFAULT = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
USER: dict[str, str] = {"role": "user", "content": "Hi {{ 7 * 7 }}"}


@pytest.mark.parametrize(
    ("messages", "options", "text"),
    [
        pytest.param([USER], {}, DEFAULT + "<|im_start|>user\nHi {{ 7 * 7 }}<|im_end|>\n", id="default system"),
        pytest.param(
            [{"role": "system", "content": "Be brief."}, USER],
            {"add_generation_prompt": True},
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi {{ 7 * 7 }}<|im_end|>\n"
            "<|im_start|>assistant\n",
            id="own system",
        ),
        pytest.param(
            [{"role": "system", "content": ""}, USER],
            {},
            "<|im_start|>system\n<|im_end|>\n<|im_start|>user\nHi {{ 7 * 7 }}<|im_end|>\n",
            id="empty system",
        ),
    ],
)
def test_chatml_renders(tiny: Path, messages: list[dict[str, str]], options: dict[str, Any], text: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny)

    assert tokenizer.apply_chat_template(messages, tokenize=False, **options) == text


def test_the_template_beside_the_weights_is_ours(tiny: Path) -> None:
    assert (tiny / "chat_template.jinja").read_text() == load_template("chatml")


def test_an_unknown_template_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="no template 'llama3'; the templates are: chatml"):
        load_template("llama3")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("chat_template.jinja", "hi"),
        ("tokenizer_config.json", '{"chat_template": "hi"}'),
        ("tokenizer_config.json", '{"chat_template": [{"name": "default", "template": "hi"}]}'),
    ],
)
def test_a_models_template_is_found_where_it_was_kept_at_each_time(tmp_path: Path, name: str, text: str) -> None:
    assert template_of(tmp_path) == ""
    (tmp_path / name).write_text(text)

    assert template_of(tmp_path) == "hi"
