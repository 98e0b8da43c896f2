from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from tunegate.models import make_tiny
from tunegate.training.datasets import Message, Row
from tunegate.training.encode import IGNORED, encode_rows, encode_turns

HEAD = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
ONE: tuple[Message, ...] = ({"role": "user", "content": "你好"}, {"role": "assistant", "content": "您好，我是玄机。"})
TWO: tuple[Message, ...] = (
    {"role": "user", "content": "你好"},
    {"role": "assistant", "content": "您好。"},
    {"role": "user", "content": "推荐一款\n男士洗面奶"},
    {"role": "assistant", "content": "推荐A款。"},
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny") / "model", [message["content"] for message in (*ONE, *TWO)] * 3)


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize(
    ("messages", "text", "trained"),
    [
        pytest.param(
            ONE,
            HEAD + "<|im_start|>user\n你好<|im_end|>\n<|im_start|>assistant\n您好，我是玄机。<|im_end|>",
            ["您好，我是玄机。<|im_end|>"],
            id="one turn",
        ),
        pytest.param(
            TWO,
            HEAD + "<|im_start|>user\n你好<|im_end|>\n<|im_start|>assistant\n您好。<|im_end|>\n<|im_start|>user\n"
            "推荐一款\n男士洗面奶<|im_end|>\n<|im_start|>assistant\n推荐A款。<|im_end|>",
            ["您好。<|im_end|>", "推荐A款。<|im_end|>"],
            id="two turns",
        ),
    ],
)
def test_every_answer_is_trained_with_its_closing_token_and_nothing_else(
    tokenizer: Any, messages: tuple[Message, ...], text: str, trained: list[str]
) -> None:
    (example,) = encode_rows(tokenizer, [Row("rows.jsonl", 1, messages)], 512).examples

    assert tokenizer.decode(example.input_ids) == text
    spans = [[]]
    for token, label in zip(example.input_ids, example.labels, strict=True):
        assert label in (token, IGNORED)
        if label == IGNORED:
            spans.append([])
        else:
            spans[-1].append(token)
    assert [tokenizer.decode(span) for span in spans if span] == trained


def test_a_served_prompt_is_what_training_put_before_the_answer(tokenizer: Any) -> None:
    turns = encode_turns(tokenizer, TWO)
    trained = [token for turn in turns for token in turn.input_ids]
    answer = [label for label in turns[-1].labels if label != IGNORED]

    served = tokenizer.apply_chat_template(TWO[:-1], add_generation_prompt=True)["input_ids"]

    assert served + answer == trained


def test_turns_beyond_the_limit_are_left_out_from_the_end(tokenizer: Any) -> None:
    first = len(encode_turns(tokenizer, TWO)[0].input_ids)

    cut = encode_rows(tokenizer, [Row("rows.jsonl", 1, TWO)], first)

    assert len(cut.examples[0].input_ids) == first
    assert cut.shortened == 1
    assert cut.rejected == ()


def test_a_dialogue_whose_first_answer_does_not_fit_is_rejected(tokenizer: Any) -> None:
    first = len(encode_turns(tokenizer, TWO)[0].input_ids)

    cut = encode_rows(tokenizer, [Row("rows.jsonl", 3, TWO)], first - 1)

    assert cut.examples == ()
    assert (cut.rejected[0].file, cut.rejected[0].line) == ("rows.jsonl", 3)
    assert f"after {first} tokens, beyond --cutoff_len {first - 1}" in cut.rejected[0].reason
