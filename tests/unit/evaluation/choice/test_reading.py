from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.unit.evaluation.builders import write_choice, write_csv
from tunegate.api.errors import DataError
from tunegate.evaluation.choice import ChoiceSuite, digest_of, read_subjects, wording
from tunegate.evaluation.choice.exams import names
from tunegate.evaluation.choice.suite import metrics, record

GOOD = [0, "题", "甲", "乙", "丙", "丁", "A"]


def test_a_limit_keeps_the_first_questions_over_all_subjects(tmp_path: Path) -> None:
    write_choice(tmp_path, {"one": "AB", "two": "CDA", "three": "A"})
    kept = read_subjects(tmp_path, "ceval", "val", 1, 3)
    assert [(subject.handle, len(subject.items)) for subject in kept] == [("one", 2), ("two", 1)]
    assert [len(subject.items) for subject in read_subjects(tmp_path, "ceval", "val", 1, None)] == [2, 3, 1]


def test_no_shots_need_no_examples(tmp_path: Path) -> None:
    write_choice(tmp_path, {"one": "AB"})
    (tmp_path / "dev" / "one_dev.csv").unlink()
    assert read_subjects(tmp_path, "ceval", "val", 0, None)[0].shots == ()


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        pytest.param(
            [GOOD, [1, "题", "甲", "", "丙", "丁", "A"]], "_val.csv:3 is a question without B", id="no option"
        ),
        pytest.param([GOOD, [1, "题"]], ":3 is a question without A, B, C, D", id="short row"),
        pytest.param([[*GOOD, "", "more"]], ":2 is a question with more columns", id="long row"),
        pytest.param([[0, "题", "甲", "乙", "丙", "丁", "E"]], ":2 has the answer 'E'", id="no such letter"),
        pytest.param([[0, "题", "甲", "乙", "丙", "丁", ""]], ":2 has no answer", id="no answer"),
        pytest.param([GOOD, GOOD], "repeats the id 0", id="duplicate id"),
        pytest.param([], "holds no question", id="empty"),
    ],
)
def test_bad_questions_are_named(tmp_path: Path, rows: list[list[object]], reason: str) -> None:
    write_choice(tmp_path, {"one": "A"})
    write_csv(tmp_path / "val" / "one_val.csv", rows)
    with pytest.raises(DataError, match=reason):
        read_subjects(tmp_path, "ceval", "val", 1, None)


def test_blank_lines_and_columns_without_a_heading_are_left_out(tmp_path: Path) -> None:
    """As spreadsheets write them: a line of commas, and one comma too many in each."""
    write_choice(tmp_path, {"one": "A"})
    rows = "id,question,A,B,C,D,answer,\n7,题,甲,乙,丙,丁,A,\n\n,,,,,,,\n9,题二,甲,乙,丙,丁,B,\n\n"
    (tmp_path / "val" / "one_val.csv").write_text(rows)
    (subject,) = read_subjects(tmp_path, "ceval", "val", 1, None)
    assert [(item.id, item.answer) for item in subject.items] == [("7", "A"), ("9", "B")]


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    write_choice(tmp_path, {"one": "A"})
    (tmp_path / "val" / "one_val.csv").write_text("id,question,Question,A,B,C,D,answer\n0,题,题二,甲,乙,丙,丁,A\n")
    with pytest.raises(DataError, match=r"one_val.csv has two columns question; keep one"):
        read_subjects(tmp_path, "ceval", "val", 1, None)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    write_choice(tmp_path, {"one": "A"})
    (tmp_path / "val" / "one_val.csv").write_text("id,question,A,B,C,answer\n0,题,甲,乙,丙,A\n")
    with pytest.raises(DataError, match=r"one_val.csv has no column D; add it"):
        read_subjects(tmp_path, "ceval", "val", 1, None)


def test_a_test_split_may_have_no_labels(tmp_path: Path) -> None:
    write_choice(tmp_path, {"one": "A"})
    write_csv(tmp_path / "test" / "one_test.csv", [[0, "题", "甲", "乙", "丙", "丁", ""], [1, *GOOD[1:]]])
    items = read_subjects(tmp_path, "ceval", "test", 1, None)[0].items
    assert [item.answer for item in items] == ["", "A"]


def test_files_and_mapping_must_agree(tmp_path: Path) -> None:
    write_choice(tmp_path, {"one": "A", "two": "A"})
    (tmp_path / "val" / "two_val.csv").rename(tmp_path / "val" / "tow_val.csv")
    with pytest.raises(DataError, match=r"tow_val\.csv belongs to no subject"):
        read_subjects(tmp_path, "ceval", "val", 1, None)
    (tmp_path / "val" / "tow_val.csv").unlink()
    with pytest.raises(
        DataError, match=r"has no val file of two, such as val/two.csv; add what is missing, or name what is there"
    ):
        read_subjects(tmp_path, "ceval", "val", 1, None)


def test_too_few_examples_are_refused(tmp_path: Path) -> None:
    write_choice(tmp_path, {"one": "A"})
    with pytest.raises(DataError, match="has 1 of the 5 examples of one"):
        read_subjects(tmp_path, "ceval", "val", 5, None)


def test_a_chain_of_thought_needs_explained_examples(tmp_path: Path) -> None:
    write_choice(tmp_path, {"one": "A"})
    with pytest.raises(DataError, match="have no explanation; set shots: 0 or cot: false"):
        read_subjects(tmp_path, "ceval", "val", 1, None, explained=True)
    assert read_subjects(tmp_path, "ceval", "val", 0, None, explained=True)


@pytest.mark.parametrize("mapping", ["", "{}", "[]", '{"one": []}', '{"one": 5}'])
def test_an_unusable_mapping_is_refused(tmp_path: Path, mapping: str) -> None:
    write_choice(tmp_path, {"one": "A"})
    (tmp_path / "subject_mapping.json").write_text(mapping)
    with pytest.raises(DataError, match=r"subject_mapping.json (can't be read|names no subject)"):
        read_subjects(tmp_path, "ceval", "val", 1, None)


def test_the_tables_of_the_exams_are_their_authors() -> None:
    def sizes(exam: Any) -> dict[str, int]:
        areas = [area for name in names(exam).values() for area in name.areas]
        return {"subjects": len(names(exam))} | {area: areas.count(area) for area in sorted(set(areas))}

    assert sizes("ceval") == {
        "subjects": 52, "Hard": 8, "Humanities": 11, "Other": 11, "STEM": 20, "Social Science": 10,
    }  # fmt: skip
    assert sizes("cmmlu") == {
        "subjects": 67, "China specific": 15, "Humanities": 13, "Other": 15, "STEM": 17, "Social Science": 22,
    }  # fmt: skip
    assert sizes("mmlu") == {"subjects": 57, "Humanities": 13, "Other": 13, "STEM": 19, "Social Science": 12}


# The layouts in which the exams are handed round, made from the same rows.
ROW = ("题", "甲", "乙", "丙", "丁", "C")
COLUMNS = ("question", "A", "B", "C", "D", "answer")


def _csv(head: Sequence[str] | None, rows: Sequence[Sequence[object]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([*([head] if head else []), *rows])
    return text.getvalue().encode()


def _parquet(rows: Sequence[Mapping[str, object]]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), sink)
    return sink.getvalue()


def _ceval(handle: str, split: str) -> tuple[str, bytes]:
    body = _csv(("id", *COLUMNS, "explanation"), [(0, *ROW, "因为。")])
    return f"ceval-exam/{split}/{handle}_{split}.csv", body


def _cmmlu(handle: str, split: str) -> tuple[str, bytes]:
    return f"{split}/{handle}.csv", _csv(("", "Question", "A", "B", "C", "D", "Answer"), [(0, *ROW)])


def _mmlu(handle: str, split: str) -> tuple[str, bytes]:
    return f"data/{split}/{handle}_{split}.csv", _csv(None, [ROW])


def _ceval_parquet(handle: str, split: str) -> tuple[str, bytes]:
    row = {"id": 0, **dict(zip(COLUMNS, ROW, strict=True)), "explanation": "因为。"}
    return f"{handle}/{split}-00000-of-00001.parquet", _parquet([row])


def _mmlu_parquet(handle: str, split: str) -> tuple[str, bytes]:
    name = "validation" if split == "val" else split
    row = {"question": ROW[0], "subject": handle, "choices": list(ROW[1:5]), "answer": 2}
    return f"{handle}/{name}-00000-of-00001.parquet", _parquet([row])


Layout = Callable[[str, str], tuple[str, bytes]]


@pytest.mark.parametrize(
    ("exam", "layout"),
    [
        pytest.param("ceval", _ceval, id="ceval"),
        pytest.param("ceval", _ceval_parquet, id="ceval-parquet"),
        pytest.param("cmmlu", _cmmlu, id="cmmlu"),
        pytest.param("mmlu", _mmlu, id="mmlu"),
        pytest.param("mmlu", _mmlu_parquet, id="mmlu-parquet"),
    ],
)
def test_an_exam_is_read_as_it_is_handed_round(tmp_path: Path, exam: Any, layout: Layout) -> None:
    files = dict(layout(handle, split) for handle in names(exam) for split in ("dev", "val"))
    folder, packed = tmp_path / "folder", tmp_path / "exam.zip"
    for name, body in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body)
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("__MACOSX/val/._law_val.csv", b"\x00\x05\x16\x07")
        for name, body in files.items():
            archive.writestr(name, body)
    for place in (folder, packed):
        subjects = read_subjects(place, exam, "val", 1, None)
        assert [subject.handle for subject in subjects] == list(names(exam))
        assert {(item.id, item.question, *item.options, item.answer) for s in subjects for item in s.items} == {
            ("0", *ROW)
        }
        assert all(len(subject.shots) == 1 for subject in subjects)
    assert digest_of(folder) == digest_of(folder) != digest_of(packed)


def test_a_subject_that_the_exam_has_and_the_files_have_not_is_named(tmp_path: Path) -> None:
    for handle in list(names("ceval"))[4:]:
        name, body = _ceval(handle, "val")
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(body)
    with pytest.raises(
        DataError, match="no val file of computer_network, operating_system, computer_architecture and 1"
    ):
        read_subjects(tmp_path, "ceval", "val", 0, None)


def test_what_is_no_zip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "exam.zip").write_bytes(b"<html>")
    with pytest.raises(DataError, match=r"exam\.zip is neither a folder nor a zip"):
        read_subjects(tmp_path / "exam.zip", "ceval", "val", 0, None)
    with pytest.raises(DataError, match=r"none\.zip does not exist; correct `data`"):
        read_subjects(tmp_path / "none.zip", "ceval", "val", 0, None)


def test_questions_on_one_passage_name_it_in_a_column(tmp_path: Path) -> None:
    write_choice(tmp_path, {"one": "A"})
    rows = "\n".join(f"{number},题,甲,乙,丙,丁,A,{passage}" for number, passage in enumerate(("p1", "p1", "")))
    (tmp_path / "val" / "one_val.csv").write_text(f"id,question,A,B,C,D,answer,cluster\n{rows}\n")

    (subject,) = read_subjects(tmp_path, "ceval", "val", 1, None)

    assert [item.cluster for item in subject.items] == ["p1", "p1", ""]
    suite = ChoiceSuite("exam", "", (subject,), wording("ceval", "official", "base", cot=False))
    measured = {"one": [record(suite, subject, item, "A") for item in subject.items]}
    assert {(metric.n, metric.clusters) for metric in metrics(suite, measured)} == {(3, 2)}
