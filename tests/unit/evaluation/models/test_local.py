from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.unit.evaluation.builders import LEARNED, SYSTEM, answers, choices, completions, next_logits
from tunegate.api.errors import EvaluationError, ModelError
from tunegate.evaluation.models.local import LocalModel, _batches, _FiniteLogits, _shared_length
from tunegate.evaluation.sheets import Line, Sheet, Sheets

LETTERS = ("A", "B", "C", "D")
DIALOGUES = [
    [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
    for question in [*LEARNED, "Is the lamp in stock?", "好的，多少钱？" * 9, "?"]
]


@pytest.fixture(scope="module")
def model(learned: Path) -> LocalModel:
    return LocalModel(learned, dtype=torch.float32, batch_size=4)


def test_learned_answers_come_without_special_tokens_in_the_order_asked(model: LocalModel) -> None:
    assert answers(model, DIALOGUES, 16)[: len(LEARNED)] == list(LEARNED.values())


@pytest.mark.parametrize("size", [2, 16])
def test_answers_do_not_depend_on_the_batch(model: LocalModel, learned: Path, size: int) -> None:
    alone = [answers(model, [dialogue], 16)[0] for dialogue in DIALOGUES]
    assert answers(LocalModel(learned, dtype=torch.float32, batch_size=size), DIALOGUES, 16) == alone


def test_answers_end_at_max_tokens(model: LocalModel, learned: Path) -> None:
    (answer,) = answers(model, DIALOGUES[:1], 2)
    assert answer is not None
    assert LEARNED["What does the kettle cost?"].startswith(answer)
    assert len(AutoTokenizer.from_pretrained(learned)(answer)["input_ids"]) == 2


def test_half_a_character_at_the_end_is_left_out(model: LocalModel) -> None:
    """As by servers, so that the answer is the same either way."""
    ids = model._encode("It costs 瓹", special=False)
    assert model._decode(ids) == "It costs 瓹"
    assert model._decode(ids[:-1]) == "It costs"


def test_a_text_is_gone_on_with_as_an_answer_is(model: LocalModel, learned: Path) -> None:
    render = AutoTokenizer.from_pretrained(learned).apply_chat_template
    heads = [render(dialogue, tokenize=False, add_generation_prompt=True) for dialogue in DIALOGUES]
    assert completions(model, heads, 16)[: len(LEARNED)] == list(LEARNED.values())
    with pytest.raises(EvaluationError, match=r"needs \d+ tokens"):
        completions(model, ["水壶" * 2000], 16)


def test_generation_defaults_of_the_folder_do_not_count(learned: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(learned, tmp_path / "sampling")
    config = json.loads((folder / "generation_config.json").read_text())
    config |= {"do_sample": True, "temperature": 5.0, "repetition_penalty": 9.0, "max_length": 3}
    (folder / "generation_config.json").write_text(json.dumps(config))
    found = answers(LocalModel(folder, dtype=torch.float32), DIALOGUES, 16)
    assert found[: len(LEARNED)] == list(LEARNED.values())


@pytest.mark.parametrize("size", [1, 2, 16])
def test_next_logits_are_those_of_each_text_alone(learned: Path, size: int) -> None:
    model = LocalModel(learned, dtype=torch.float32, batch_size=size)
    texts = ["水壶多少钱？答案：", "水壶多少钱？", "水壶售价26元。水壶多少钱？答案："]
    for asked in (texts, texts[:1], ["It costs", "水壶"]):
        found = next_logits(model, asked, LETTERS)
        assert found == [pytest.approx(row, abs=1e-4) for row in _plain_logits(learned, asked)]


def test_probes_are_how_likely_the_weights_find_each_token(model: LocalModel, learned: Path, broken: Path) -> None:
    network = AutoModelForCausalLM.from_pretrained(learned, dtype=torch.float32)
    assert len(model.probes) == 4
    for probe in model.probes:
        with torch.inference_mode():
            logits = network(input_ids=torch.tensor([probe.tokens])).logits[0].log_softmax(-1)
        expected = [float(logits[at, token]) for at, token in enumerate(probe.tokens[1:])]
        assert probe.logprobs == pytest.approx(expected, abs=1e-4)
    assert LocalModel(broken, dtype=torch.float32).probes == ()


def test_the_letter_with_the_greatest_logit_is_chosen(model: LocalModel, learned: Path, broken: Path) -> None:
    texts = ["水壶多少钱？答案：", "水壶多少钱？", "It costs"]
    greatest = [LETTERS[row.index(max(row))] for row in _plain_logits(learned, texts)]
    assert choices(model, texts, LETTERS) == greatest
    assert choices(LocalModel(broken), texts, LETTERS) == [None] * 3


def test_a_sheet_that_was_begun_is_completed_with_the_same_answers(learned: Path) -> None:
    model = LocalModel(learned, dtype=torch.float32, batch_size=2)
    kept: list[Line] = []
    whole = Sheets(None, lambda more: None).sheet(questions=DIALOGUES)
    model.answer(DIALOGUES, 16, whole)
    sheet = Sheet(DIALOGUES, {}, kept.extend)
    model.answer(DIALOGUES, 16, sheet)
    assert sheet.answers() == whole.answers()
    again: list[Line] = []
    begun = Sheet(DIALOGUES, {line.question: line.answer for line in kept[:2]}, again.extend)
    model.answer(DIALOGUES, 16, begun)
    assert (again, begun.answers()) == (kept[2:], whole.answers())


def test_progress_adds_up_to_the_questions(model: LocalModel) -> None:
    steps: list[int] = []
    model.answer(DIALOGUES, 2, Sheets(None, steps.append).sheet(questions=DIALOGUES))
    assert steps == [4, 2]


def test_a_choice_of_several_tokens_is_refused(model: LocalModel) -> None:
    with pytest.raises(EvaluationError, match="tokens of 'neither of them'"):
        next_logits(model, ["a"], ("A", "neither of them"))


def test_a_question_longer_than_the_context_is_refused(model: LocalModel) -> None:
    with pytest.raises(EvaluationError, match="takes 2048; lower max_tokens or shots"):
        answers(model, DIALOGUES[:1], 2048)
    with pytest.raises(EvaluationError, match="takes 2048; lower max_tokens or shots"):
        next_logits(model, ["? " * 2048], ("A",))


def test_a_model_that_is_not_finite_gives_no_answers(broken: Path) -> None:
    model = LocalModel(broken)
    assert answers(model, DIALOGUES, 8) == [None] * len(DIALOGUES)
    assert all(row != row for row in next_logits(model, ["a"], ("A", "B"))[0])


def test_only_the_rows_that_are_not_finite_end() -> None:
    finite = _FiniteLogits(4, stop=1)
    scores = torch.tensor([[1.0, 0, 2], [1.0, torch.nan, 2], [torch.inf, 0, 1], [-torch.inf, 0, 1]])
    chosen = finite(torch.zeros(4, 1), scores).argmax(dim=-1).tolist()
    assert (finite.failed, chosen) == ([False, True, True, False], [2, 1, 1, 2])


def test_a_folder_that_was_trained_without_cache_is_measured_the_same(learned: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(learned, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text()) | {"use_cache": False}
    (folder / "config.json").write_text(json.dumps(config))
    model = LocalModel(folder, dtype=torch.float32)
    assert answers(model, DIALOGUES[:1], 16) == [LEARNED["What does the kettle cost?"]]
    texts = ["水壶多少钱？答案：", "水壶多少钱？"]
    found = next_logits(model, texts, LETTERS)
    assert found == [pytest.approx(row, abs=1e-4) for row in _plain_logits(learned, texts)]


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "chat_template.jinja"])
def test_a_folder_that_lacks_a_file_is_refused(learned: Path, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(learned, tmp_path / "model")
    (folder / name).unlink()
    with pytest.raises(ModelError, match=name):
        LocalModel(folder)


def test_unusable_files_are_refused(learned: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(learned, tmp_path / "model")
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match="is no safetensors file"):
        LocalModel(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError):
        LocalModel(folder)
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match="no usable tokenizer"):
        LocalModel(folder)


def test_missing_weights_are_not_made_up(learned: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(learned, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks weights, such as model\.norm\.weight"):
        LocalModel(folder)


def test_a_template_that_refuses_a_dialogue_is_named(learned: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(learned, tmp_path / "model")
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no system turn') }}")
    with pytest.raises(ModelError, match="refuses a dialogue: no system turn"):
        answers(LocalModel(folder), DIALOGUES, 2)


def test_batches_hold_every_question_once_the_longest_first() -> None:
    assert list(_batches([3, 9, 5, 7, 1], 2)) == [[1, 3], [2, 0], [4]]


@pytest.mark.parametrize(
    ("prompts", "length"),
    [
        ([[1, 2, 3], [1, 2, 4]], 2),
        ([[1, 2, 3], [1, 2]], 1),
        ([[1, 2], [1, 2]], 1),
        ([[1, 2, 3]], 2),
        ([[1], [2]], 0),
        ([[7, 1], [1, 1]], 0),
    ],
)
def test_what_prompts_share_leaves_one_token_of_each(prompts: list[list[int]], length: int) -> None:
    assert _shared_length(prompts) == length


def _plain_logits(folder: Path, texts: Sequence[str]) -> list[list[float]]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    letters = [tokenizer(letter)["input_ids"][0] for letter in LETTERS]
    with torch.inference_mode():
        rows = [network(**tokenizer(text, return_tensors="pt")).logits[0, -1, letters] for text in texts]
    return [row.tolist() for row in rows]
