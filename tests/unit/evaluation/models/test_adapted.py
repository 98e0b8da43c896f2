"""Models that are not plain weights are measured as they answer: under a soft prompt, or with weights of 8 bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.adapters import VIRTUAL, make_prefix, make_prompt, tuned
from tests.unit.evaluation.builders import answers, next_logits
from tunegate.api.errors import EvaluationError
from tunegate.evaluation.models.local import LocalModel
from tunegate.models.materialize import on_base
from tunegate.models.quantize import quantize

DIALOGUES = [[{"role": "user", "content": text}] for text in ("Price?", "How much is the kettle? " * 3, "水壶多少钱？")]
TEXTS = ["水壶多少钱？答案：", "水壶多少钱？", "How much?"]
LETTERS = ("A", "B", "C", "D")


@pytest.fixture(scope="module", params=[make_prompt, make_prefix], ids=["p_tuning", "p_tuning_v2"])
def pair(
    request: pytest.FixtureRequest, base: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[LocalModel, Any]:
    """The folder as it is measured, and the same adapter as peft runs it."""
    adapter = request.param(base, tmp_path_factory.mktemp("adapter") / "adapter")
    folder = on_base(adapter, adapter.with_name("served"), lambda: base)
    return LocalModel(folder, dtype=torch.float32, batch_size=2), tuned(base, adapter)


@torch.no_grad()
def test_answers_under_a_soft_prompt_are_those_of_peft(pair: tuple[LocalModel, Any], base: Path) -> None:
    model, peft = pair
    tokenizer = AutoTokenizer.from_pretrained(base)
    wanted = []
    for dialogue in DIALOGUES:
        text = tokenizer.apply_chat_template(dialogue, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        for _ in range(10):  # one pass for each token, with no cache that could be wrong
            ids = torch.cat([ids, peft(input_ids=ids).logits[:, -1:].argmax(dim=-1)], dim=1)
        said = tokenizer.decode(ids[0, -10:], skip_special_tokens=True).strip()
        wanted.append(said.rstrip("\ufffd"))  # a character that was cut off is not given

    assert answers(model, DIALOGUES, 10) == wanted
    assert answers(LocalModel(base, dtype=torch.float32), DIALOGUES, 10) != wanted


@torch.no_grad()
@pytest.mark.parametrize("asked", [TEXTS, TEXTS[:1], ["How", "水"]])
def test_choices_under_a_soft_prompt_are_those_of_peft(
    pair: tuple[LocalModel, Any], base: Path, asked: list[str]
) -> None:
    model, peft = pair
    tokenizer = AutoTokenizer.from_pretrained(base)
    letters = [tokenizer(letter)["input_ids"][0] for letter in LETTERS]
    wanted = [peft(**tokenizer(text, return_tensors="pt")).logits[0, -1, letters].tolist() for text in asked]

    assert next_logits(model, asked, LETTERS) == [pytest.approx(row, abs=1e-3) for row in wanted]


def test_a_soft_prompt_takes_its_part_of_the_context(pair: tuple[LocalModel, Any], base: Path) -> None:
    room = 2048 - VIRTUAL - len(AutoTokenizer.from_pretrained(base)("?" * 2000)["input_ids"])
    text = "?" * (2000 + room)
    with pytest.raises(EvaluationError, match="lower max_tokens or shots"):
        next_logits(pair[0], [text], ("A",))


def test_the_harness_asks_no_model_with_a_soft_prompt(pair: tuple[LocalModel, Any], base: Path) -> None:
    with pytest.raises(EvaluationError, match="lm-evaluation-harness would leave out the soft prompt"):
        pair[0].for_harness()
    assert LocalModel(base).for_harness()[0].config.vocab_size


@torch.no_grad()
@pytest.mark.parametrize("method", ["int8", "int4", "fp8"])
def test_quantized_weights_are_measured_as_they_compute(base: Path, method: str, tmp_path: Path) -> None:
    quantize(base, tmp_path / method, method)
    tokenizer = AutoTokenizer.from_pretrained(base)
    letters = [tokenizer(letter)["input_ids"][0] for letter in LETTERS]
    network = AutoModelForCausalLM.from_pretrained(tmp_path / method, dtype=torch.float32)
    wanted = [network(**tokenizer(text, return_tensors="pt")).logits[0, -1, letters].tolist() for text in TEXTS]

    found = next_logits(LocalModel(tmp_path / method, dtype=torch.float32), TEXTS, LETTERS)

    assert found == [pytest.approx(row, rel=1e-2, abs=0.5) for row in wanted]
    assert answers(LocalModel(tmp_path / method), DIALOGUES[:1], 4)[0]
