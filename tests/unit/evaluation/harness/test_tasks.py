"""Tasks of lm-evaluation-harness on a real tiny model: from files here, as our results, and beside our own code."""

from __future__ import annotations

import csv
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.builders import make_version
from tests.unit.evaluation.builders import LEARNED, write_csv
from tunegate.api.errors import DataError, EvaluationError
from tunegate.api.evaluation import Evaluation
from tunegate.evaluation import load_suite
from tunegate.evaluation.choice import ChoiceSuite
from tunegate.evaluation.choice.prompts import letters
from tunegate.evaluation.harness import HarnessSuite
from tunegate.evaluation.models import Model
from tunegate.evaluation.models.local import LocalModel
from tunegate.evaluation.run import evaluate
from tunegate.models import make_tiny

pytest.importorskip("lm_eval", reason="needs lm-evaluation-harness: pip install 'tunegate[lm-eval]'")
pytestmark = pytest.mark.filterwarnings("ignore")  # what it and its many packages warn of is not ours to mend

SUBJECTS = {"law": ["法学", "ABCD"], "accountant": ["注册会计师", "DCB"]}
TASK = """
task: local-SUBJECT
dataset_path: exam
dataset_name: SUBJECT
validation_split: val
fewshot_split: dev
fewshot_config: {sampler: first_n}
num_fewshot: 2
output_type: multiple_choice
description: "以下是中国关于TITLE的单项选择题，请选出其中的正确答案。\\n\\n"
doc_to_text: "{{question.strip()}}\\nA. {{A}}\\nB. {{B}}\\nC. {{C}}\\nD. {{D}}\\n答案："
doc_to_choice: ["A", "B", "C", "D"]
doc_to_target: "{{['A', 'B', 'C', 'D'].index(answer)}}"
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
WRITE = """
task: write
dataset_path: csv
dataset_kwargs: {data_files: {test: questions.csv}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["<|im_end|>"], max_gen_toks: 16, do_sample: false}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked for anywhere."""

    def refuse(*args: object) -> None:
        raise AssertionError(f"it asks the network: {args[1:]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LocalModel:
    """One whose tokenizer has the letters with a space before them, as lm-evaluation-harness compares them."""
    texts = [f"以下是中国关于法学的单项选择题，请选出其中的正确答案。说明 {letter}" for letter in "ABCD"] * 20
    folder = make_tiny(tmp_path_factory.mktemp("tiny") / "model", [*texts, *LEARNED])
    return LocalModel(folder, dtype=torch.float32)


@pytest.fixture(scope="module")
def exam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same files, in C-Eval's layout, as a suite of ours and as one of lm-evaluation-harness."""
    folder = tmp_path_factory.mktemp("harness")
    data = folder / "data" / "exam"
    data.mkdir(parents=True)
    about = "language: zh\ndescription: For tests.\nlicense: CC0-1.0\n"
    for name, fields in (
        ("ours", "kind: choice\ncompat: lm_eval\nshots: 2\ndata: ../data/exam\n"),
        ("theirs", "kind: lm_eval\ndata: ../data\ntasks: [local-law, local-accountant]\n"),
    ):
        (folder / name).mkdir()
        (folder / name / "suite.yaml").write_text(f"name: {name}\n{about}{fields}")
    mapping = {handle: [handle, title, "Other"] for handle, (title, _) in SUBJECTS.items()}
    (data / "subject_mapping.json").write_text(json.dumps(mapping))
    for handle, (title, right) in SUBJECTS.items():
        (folder / "theirs" / f"{handle}.yaml").write_text(TASK.replace("SUBJECT", handle).replace("TITLE", title))
        for split, answers in (("dev", "BAC"), ("val", right)):
            # what reads "0.50" as a number asks another question
            rows = [
                [n, f" {split}第{n}题" + "说明" * n, "0.50", "None", "007", f"丁{n}", letter]
                for n, letter in enumerate(answers)
            ]
            write_csv(data / split / f"{handle}_{split}.csv", rows)
    return folder


def run(model: Model, suite: Any, cache: Path | None = None) -> Evaluation:
    (result,) = evaluate(model, make_version("run-1"), [suite], cache=cache)
    return result


def asked_by_lm_eval(model: LocalModel, suite: HarnessSuite) -> Iterator[dict[str, Any]]:
    """Each question as lm-evaluation-harness has asked it, by its own code alone."""
    from lm_eval.evaluator import evaluate as harness
    from lm_eval.models.huggingface import HFLM

    network, tokenizer = model.for_harness()
    lm = HFLM(pretrained=network, tokenizer=tokenizer, batch_size=3)
    for asked in suite.asked:
        found = harness(lm=lm, task_dict={"tasks": {asked.name: asked.task}}, bootstrap_iters=0)
        assert found is not None
        yield from found["samples"][asked.name]


def test_every_log_probability_and_the_accuracy_are_those_of_lm_eval(model: LocalModel, exam: Path) -> None:
    ours, theirs = load_suite(exam / "ours"), load_suite(exam / "theirs")
    assert isinstance(ours, ChoiceSuite)
    assert isinstance(theirs, HarnessSuite)
    vocabulary = range(model.for_harness()[0].config.vocab_size)
    tokens = model.single_tokens(letters(ours.wording))
    chances = []
    for subject in ours.subjects:
        texts = [str(ours.prompt(subject, item)) for item in subject.items]
        rows = {place: row for batch in model.next_logits(texts, vocabulary) for place, row in batch.items()}
        chances += [torch.log_softmax(torch.tensor(rows[place]), 0)[tokens].tolist() for place in range(len(texts))]
    prompts = [ours.prompt(subject, item) for subject in ours.subjects for item in subject.items]
    samples = list(asked_by_lm_eval(model, theirs))

    assert [sample["arguments"][0][0] for sample in samples] == prompts
    for sample, row in zip(samples, chances, strict=True):
        assert [chance for (chance, _), *_ in sample["resps"]] == pytest.approx(row, abs=1e-3)
    accuracy = sum(sample["acc"] for sample in samples) / len(samples)
    for suite in (ours, theirs):
        found = run(model, suite).metric("accuracy")
        assert found is not None
        assert (found.value, found.n) == (accuracy, 7)


def test_its_results_are_ours(model: LocalModel, exam: Path) -> None:
    suite = load_suite(exam / "theirs")
    result = run(model, suite)

    assert [(metric.name, metric.n) for metric in result.metrics] == [
        ("accuracy", 7),
        ("accuracy/local-law", 4),
        ("accuracy/local-accountant", 3),
    ]
    assert all(metric.low is not None and metric.high is not None for metric in result.metrics)
    assert (len(suite), result.topic, result.tokens_read) == (7, "chinese", None)
    first = result.records[0]
    assert (first.id, first.expected, first.answer in "ABCD") == ("local-law/0", "A", True)
    assert first.prompt == "val第0题\nA. 0.50\nB. None\nC. 007\nD. 丁0\n答案："
    assert first.scores == {"accuracy": float(first.answer == "A")}
    assert result.prompts_digest == run(model, suite).prompts_digest


def test_a_limit_keeps_the_first_questions_and_is_another_suite(model: LocalModel, exam: Path) -> None:
    part = load_suite(exam / "theirs", 5)

    assert [record.id for record in run(model, part).records][3:] == ["local-law/3", "local-accountant/0"]
    assert part.digest != load_suite(exam / "theirs").digest


def test_other_data_is_another_suite(exam: Path) -> None:
    before = load_suite(exam / "theirs").digest
    (exam / "data" / "note.txt").write_text("Corrected.")
    after = load_suite(exam / "theirs").digest
    (exam / "data" / "note.txt").unlink()

    assert before != after


def test_what_a_task_has_answered_is_not_asked_again(model: LocalModel, exam: Path, tmp_path: Path) -> None:
    class Broken:
        """Ends in the second task."""

        settings, tokens, probes, asked = model.settings, None, (), 0

        def for_harness(self) -> Any:
            self.asked += 1
            if self.asked == 2:
                raise KeyboardInterrupt
            return model.for_harness()

    with pytest.raises(KeyboardInterrupt):
        run(Broken(), load_suite(exam / "theirs"), tmp_path)  # type: ignore[arg-type]
    other = Broken()
    other.asked = 2
    assert run(other, load_suite(exam / "theirs"), tmp_path).records == run(model, load_suite(exam / "theirs")).records  # type: ignore[arg-type]
    assert other.asked == 3


def test_a_task_whose_answers_are_written(model: LocalModel, tmp_path: Path) -> None:
    write_suite(tmp_path, "tasks: [write]\nmode: chat\n", WRITE)
    with (tmp_path / "questions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["question", "answer"], *LEARNED.items(), ["What?", "That."]])
    result = run(model, load_suite(tmp_path))

    assert (result.metrics[0].name, result.metrics[0].n) == ("score", 4)
    assert [record.expected for record in result.records] == [*LEARNED.values(), "That."]
    assert all(set(record.scores) == {"score"} for record in result.records)
    assert all(record.answer for record in result.records)


@pytest.mark.parametrize(
    ("about", "task", "said"),
    [
        ("tasks: [local-law]\n", TASK.replace("SUBJECT", "law"), "The task reads exam, which is not here; put a copy"),
        ("tasks: [write]\n", WRITE, "The task reads questions.csv, which is no file in"),
        (
            "tasks: [write]\n",
            WRITE.replace("questions.csv", "https://example.com/questions.csv"),
            "The task reads https://example.com/questions.csv, which is no file in",
        ),
        ("tasks: [write]\n", WRITE.replace("{{question}}", "{{ques"), "The task write can't be"),
    ],
    ids=["data-set", "file", "url", "template"],
)
def test_what_is_not_here_is_said(model: LocalModel, tmp_path: Path, about: str, task: str, said: str) -> None:
    write_suite(tmp_path, about, task)
    if "{{ques" in task and "{{question}}" not in task:
        (tmp_path / "questions.csv").write_text("question,answer\nA?,B.\n")
    with pytest.raises((DataError, EvaluationError), match=said.replace(".", r"\.")):
        run(model, load_suite(tmp_path))


def write_suite(folder: Path, about: str, task: str) -> None:
    fields = "name: tried\nkind: lm_eval\nlanguage: en\ndescription: For tests.\nlicense: CC0-1.0\n"
    (folder / "suite.yaml").write_text(fields + about)
    (folder / "task.yaml").write_text(task)
