from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.builders import make_version
from tests.unit.evaluation.builders import SUBJECTS, write_choice, write_csv
from tunegate.api.errors import UsageError
from tunegate.api.evaluation import Probe
from tunegate.evaluation import load_suite
from tunegate.evaluation.choice import ChoiceSuite, Item, Subject, measure, wording
from tunegate.evaluation.choice.suite import metrics, record, submission
from tunegate.evaluation.models import Dialogue
from tunegate.evaluation.models.local import LocalModel
from tunegate.evaluation.run import evaluate
from tunegate.evaluation.sheets import Sheet, Sheets
from tunegate.store import Store

ITEM = Item("7", "6除以2等于？", ("1", "2", "3", "4"), "C")
BLANK = Sheets(None, lambda more: None)
CEVAL = wording("ceval", "official", "base", cot=False)


def make_suite(*handles: str, areas: Sequence[str] = ("STEM",), **fields: Any) -> ChoiceSuite:
    subjects = tuple(Subject(handle, handle, (), (ITEM,), tuple(areas)) for handle in handles or ("arithmetic",))
    return ChoiceSuite(**{"name": "test", "digest": "sha256:0", "subjects": subjects, "wording": CEVAL} | fields)


class Scripted:
    """Writes what it is told to, and remembers what it was given."""

    def __init__(self, *written: str | None) -> None:
        self.written = written
        self.given: list[Any] = []

    settings = "scripted"
    tokens = None
    probes: tuple[Probe, ...] = ()

    def answer(self, dialogues: Sequence[Dialogue], max_tokens: int, sheet: Sheet) -> None:
        self.given += dialogues
        sheet.put(dict(enumerate(self.written)))

    def complete(self, texts: Sequence[str], max_tokens: int, sheet: Sheet) -> None:
        self.given += texts
        sheet.put(dict(enumerate(self.written)))

    def choose(self, texts: Sequence[str], letters: Sequence[str], sheet: Sheet) -> None:
        self.given += texts
        sheet.put(dict(enumerate(self.written)))


@pytest.mark.parametrize(
    ("letter", "right"),
    [
        pytest.param("C", 1.0, id="right"),
        pytest.param("A", 0.0, id="wrong"),
        pytest.param(None, 0.0, id="no answer"),
    ],
)
def test_the_letter_that_was_chosen_is_the_answer(letter: str | None, right: float) -> None:
    suite = make_suite()
    made = record(suite, suite.subjects[0], ITEM, letter)
    assert (made.id, made.expected, made.answer) == ("arithmetic/7", "C", letter or "")
    assert made.scores == {"accuracy": right, "answered": float(bool(letter))}


def test_accuracy_is_the_mean_over_subjects_and_micro_over_questions() -> None:
    suite = make_suite("a", "b")
    right, wrong = (record(suite, suite.subjects[0], ITEM, letter) for letter in "CA")
    found = {
        metric.name: (metric.value, metric.n) for metric in metrics(suite, {"a": [right], "b": [right, wrong, wrong]})
    }
    assert found == {
        "accuracy": (pytest.approx(2 / 3), 4),
        "accuracy_micro": (0.5, 4),
        "accuracy_stem": (pytest.approx(2 / 3), 4),
        "accuracy/a": (1, 1),
        "accuracy/b": (pytest.approx(1 / 3), 3),
        "answered": (1, 4),
    }


def test_a_harness_that_weights_by_size_has_that_as_its_accuracy() -> None:
    suite = make_suite("a", "b", wording=wording("ceval", "lm_eval", "base", cot=False))
    right, wrong = (record(suite, suite.subjects[0], ITEM, letter) for letter in "CA")
    found = {metric.name: metric.value for metric in metrics(suite, {"a": [right], "b": [right, wrong, wrong]})}
    assert (found["accuracy"], found["accuracy_macro"]) == (0.5, pytest.approx(2 / 3))


def test_areas_average_over_the_subjects_that_belong_to_them() -> None:
    suite = make_suite("a", areas=("Social Science", "Hard"))
    names = [metric.name for metric in metrics(suite, {"a": [record(suite, suite.subjects[0], ITEM, "C")]})]
    assert names[2:4] == ["accuracy_social_science", "accuracy_hard"]


def test_letters_are_read_out_of_a_chat_models_answers() -> None:
    model, suite = Scripted("答案是C。"), make_suite(mode="chat")
    found, (answered,) = measure(model, suite, BLANK)
    assert (found[0].value, answered.answer, answered.output) == (1, "C", "答案是C。")
    assert [message["role"] for message in model.given[0]] == ["system", "user"]


def test_an_answer_that_names_no_letter_is_counted_and_kept_and_never_guessed() -> None:
    found, (answered,) = measure(Scripted("大概吧"), make_suite(mode="chat"), BLANK)
    assert {metric.name: metric.value for metric in found if metric.name in ("accuracy", "answered")} == {
        "accuracy": 0,
        "answered": 0,
    }
    assert (answered.answer, answered.output) == ("", "大概吧")


def test_a_base_models_chain_of_thought_ends_before_its_next_question() -> None:
    suite = make_suite(cot=True)
    _, (answered,) = measure(Scripted(" 三。\n所以答案是C。\n\n下一题？\n答案：A"), suite, BLANK)
    assert (answered.answer, answered.output) == ("C", " 三。\n所以答案是C。")


def test_a_test_split_without_labels_is_answered_and_not_scored(tmp_path: Path, learned: Path) -> None:
    write_choice(tmp_path, SUBJECTS, split="test")
    for handle in SUBJECTS:
        write_csv(tmp_path / "test" / f"{handle}_test.csv", [[3, "题", "甲", "乙", "丙", "丁", ""]])
    (result,) = evaluate(LocalModel(learned), make_version("test"), [load_suite(tmp_path)])
    assert [(metric.name, metric.value, metric.n) for metric in result.metrics] == [
        ("accuracy", None, 0),
        ("answered", 1, 2),
    ]
    letters = submission(result)
    assert list(letters) == list(SUBJECTS)
    assert all(list(answers) == ["3"] and answers["3"] in "ABCD" for answers in letters.values())


@pytest.mark.parametrize("about", [{"mode": "base", "cot": "true"}, {"mode": "chat"}], ids=["base-cot", "chat"])
def test_a_real_model_that_names_no_letter_has_answered_nothing(
    learned: Path, tmp_path: Path, about: dict[str, str]
) -> None:
    folder = write_choice(tmp_path, SUBJECTS, shots=0, max_tokens=4, **about)
    (result,) = evaluate(LocalModel(learned), make_version("test"), [load_suite(folder)])
    assert {metric.name: (metric.value, metric.n) for metric in result.metrics if "/" not in metric.name} == {
        "accuracy": (0, 5),
        "accuracy_micro": (0, 5),
        "accuracy_other": (0, 5),
        "answered": (0, 5),
    }


def test_an_exam_may_lie_in_a_zip_in_a_bucket(tmp_path: Path, store: Store) -> None:
    exam = write_choice(tmp_path / "exam", {"care": "AB"})
    packed = tmp_path / "exam.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted(path for path in exam.rglob("*") if path.is_file() and path.name != "suite.yaml"):
            archive.write(path, path.relative_to(exam))
    store.put("exams/exam.zip", packed.read_bytes())
    suites = []
    for data in (f"{store.uri}/exams/exam.zip", str(packed)):
        folder = tmp_path / f"suite-{len(suites)}"
        folder.mkdir()
        about = "name: exam\nkind: choice\nlanguage: zh\ndescription: A zip.\nlicense: CC0-1.0\nshots: 1\n"
        (folder / "suite.yaml").write_text(f"{about}data: {data}\n")
        suites.append(load_suite(folder, endpoint_url=store.endpoint_url))
    there, here = suites
    assert isinstance(there, ChoiceSuite)
    assert isinstance(here, ChoiceSuite)
    assert there.subjects == here.subjects
    assert there.prompts_digest == here.prompts_digest


def test_other_questions_elsewhere_make_another_digest(tmp_path: Path) -> None:
    exam = write_choice(tmp_path / "exam", {"care": "AB"})
    (folder := tmp_path / "suite").mkdir()
    (exam / "suite.yaml").rename(folder / "suite.yaml")
    with (folder / "suite.yaml").open("a") as file:
        file.write("data: ../exam\n")
    before = load_suite(folder).digest
    write_csv(exam / "val" / "care_val.csv", [[0, "别的题", "甲", "乙", "丙", "丁", "A"]])
    assert load_suite(folder).digest != before


def test_a_way_of_asking_that_the_harness_lacks_is_refused_when_the_suite_is_read(tmp_path: Path) -> None:
    write_choice(tmp_path, {"care": "AB"}, compat="lm_eval", mode="chat")
    with pytest.raises(UsageError, match="lm_eval has no mode chat of ceval"):
        load_suite(tmp_path)
