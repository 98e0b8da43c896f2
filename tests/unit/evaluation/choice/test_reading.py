from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.evaluation.builders import write_choice, write_csv
from tunegate.api.errors import DataError
from tunegate.evaluation.choice import Item, Subject, metrics, prompt, read_subjects, record

SHOT = Item(id="0", question="水壶的英文是？", options=("cup", "kettle", "lamp", "mat"), answer="B")
ITEM = Item(id="7", question="6除以2等于？", options=("1", "2", "3", "4"), answer="C")
SUBJECT = Subject(handle="arithmetic", title="算术", shots=(SHOT,), items=(ITEM,))


def test_the_prompt_is_the_official_one_with_the_chinese_subject() -> None:
    assert prompt(SUBJECT, ITEM) == (
        "以下是中国关于算术考试的单项选择题，请选出其中的正确答案。\n\n"
        "水壶的英文是？\nA. cup\nB. kettle\nC. lamp\nD. mat\n答案：B\n\n"
        "6除以2等于？\nA. 1\nB. 2\nC. 3\nD. 4\n答案："
    )


@pytest.mark.parametrize(
    ("letter", "right"),
    [
        pytest.param("C", 1.0, id="right"),
        pytest.param("A", 0.0, id="wrong"),
        pytest.param(None, 0.0, id="no answer"),
    ],
)
def test_the_letter_that_was_chosen_is_the_answer(letter: str | None, right: float) -> None:
    made = record(SUBJECT, ITEM, letter)
    assert (made.id, made.expected, made.answer) == ("arithmetic/7", "C", letter or "")
    assert made.scores == {"accuracy": right, "answered": float(bool(letter))}


def test_accuracy_is_the_mean_over_subjects_and_micro_over_questions() -> None:
    right, wrong = record(SUBJECT, ITEM, "C"), record(SUBJECT, ITEM, "A")
    found = {metric.name: (metric.value, metric.n) for metric in metrics({"a": [right], "b": [right, wrong, wrong]})}
    assert found == {
        "accuracy": (pytest.approx(2 / 3), 4),
        "accuracy_micro": (0.5, 4),
        "accuracy/a": (1, 1),
        "accuracy/b": (pytest.approx(1 / 3), 3),
        "answered": (1, 4),
    }


def test_a_limit_keeps_the_first_questions_over_all_subjects(tmp_path: Path) -> None:
    write_choice(tmp_path, {"one": "AB", "two": "CDA", "three": "A"})
    kept = read_subjects(tmp_path, "val", 1, 3)
    assert [(subject.handle, len(subject.items)) for subject in kept] == [("one", 2), ("two", 1)]
    assert [len(subject.items) for subject in read_subjects(tmp_path, "val", 1, None)] == [2, 3, 1]


def test_no_shots_need_no_examples(tmp_path: Path) -> None:
    write_choice(tmp_path, {"one": "AB"})
    (tmp_path / "dev" / "one_dev.csv").unlink()
    assert read_subjects(tmp_path, "val", 0, None)[0].shots == ()


GOOD = [0, "题", "甲", "乙", "丙", "丁", "A"]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        pytest.param(
            [GOOD, [1, "题", "甲", "", "丙", "丁", "A"]], "_val.csv:3 is a question without B", id="no option"
        ),
        pytest.param([GOOD, [1, "题"]], ":3 is a question without A, B, C, D", id="short row"),
        pytest.param([[*GOOD, "", "more"]], ":2 is a question with more columns", id="long row"),
        pytest.param([[0, "题", "甲", "乙", "丙", "丁", "E"]], ":2 has the answer 'E'", id="no such letter"),
        pytest.param([GOOD, GOOD], "repeats the id 0", id="duplicate id"),
        pytest.param([], "holds no question", id="empty"),
    ],
)
def test_bad_questions_are_named(tmp_path: Path, rows: list[list[object]], reason: str) -> None:
    write_choice(tmp_path, {"one": "A"})
    write_csv(tmp_path / "val" / "one_val.csv", rows)
    with pytest.raises(DataError, match=reason):
        read_subjects(tmp_path, "val", 1, None)


def test_a_split_without_labels_is_refused(tmp_path: Path) -> None:
    write_choice(tmp_path, {"one": "A"})
    write_csv(tmp_path / "test" / "one_test.csv", [[0, "题", "甲", "乙", "丙", "丁", ""]])
    with pytest.raises(DataError, match=r"one_test.csv:2 has no answer.*split: val"):
        read_subjects(tmp_path, "test", 1, None)


def test_a_split_with_labels_is_read(tmp_path: Path) -> None:
    write_choice(tmp_path, {"one": "A"})
    write_csv(tmp_path / "test" / "one_test.csv", [GOOD, [1, *GOOD[1:]]])
    assert len(read_subjects(tmp_path, "test", 1, None)[0].items) == 2


def test_files_and_mapping_must_agree(tmp_path: Path) -> None:
    write_choice(tmp_path, {"one": "A", "two": "A"})
    (tmp_path / "val" / "two_val.csv").rename(tmp_path / "val" / "tow_val.csv")
    with pytest.raises(DataError, match=r"tow_val\.csv belongs to no subject"):
        read_subjects(tmp_path, "val", 1, None)
    (tmp_path / "val" / "tow_val.csv").unlink()
    with pytest.raises(DataError, match=r"two_val\.csv is missing"):
        read_subjects(tmp_path, "val", 1, None)


def test_too_few_examples_are_refused(tmp_path: Path) -> None:
    write_choice(tmp_path, {"one": "A"})
    with pytest.raises(DataError, match="has 1 of the 5 examples; lower shots"):
        read_subjects(tmp_path, "val", 5, None)


@pytest.mark.parametrize("mapping", ["", "{}", "[]", '{"one": []}', '{"one": 5}'])
def test_an_unusable_mapping_is_refused(tmp_path: Path, mapping: str) -> None:
    write_choice(tmp_path, {"one": "A"})
    (tmp_path / "subject_mapping.json").write_text(mapping)
    with pytest.raises(DataError, match=r"subject_mapping.json (can't be read|names no subject)"):
        read_subjects(tmp_path, "val", 1, None)
    (tmp_path / "subject_mapping.json").unlink()
    with pytest.raises(DataError, match="is missing"):
        read_subjects(tmp_path, "val", 1, None)
