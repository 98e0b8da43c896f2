import csv
import io
import json
from collections import Counter

import pytest
import yaml

from tunegate.evaluation.suites import load_suite
from tunegate.shop import DATA
from tunegate.shop.catalogue import load_catalogue
from tunegate.shop.choice import COLUMNS, choice_files


@pytest.fixture(scope="module")
def tables() -> dict[str, list[dict[str, str]]]:
    source = yaml.safe_load((DATA / "choice.yaml").read_text(encoding="utf-8"))
    files = choice_files(load_catalogue(), source)
    return {
        path: list(csv.DictReader(io.StringIO(body.decode()))) for path, body in files.items() if path.endswith("csv")
    }


def test_each_subject_has_the_layout_of_c_eval(tables: dict[str, list[dict[str, str]]]) -> None:
    mapping = json.loads((DATA / "suites/shop-choice/subject_mapping.json").read_text(encoding="utf-8"))
    assert len(mapping) >= 6
    assert all(len(names) == 3 for names in mapping.values())
    assert set(tables) == {f"{split}/{subject}_{split}.csv" for subject in mapping for split in ("dev", "val")}
    for path, rows in tables.items():
        assert len(rows) == (5 if path.startswith("dev") else 16)
        assert all(tuple(row) == COLUMNS for row in rows)
        assert all(bool(row["explanation"]) == path.startswith("dev") for row in rows)


def test_the_right_letter_says_nothing(tables: dict[str, list[dict[str, str]]]) -> None:
    for path, rows in tables.items():
        counts = Counter(row["answer"] for row in rows)
        assert set(counts) == set("ABCD")
        assert max(counts.values()) - min(counts.values()) <= 1, path


def test_options_differ_and_no_question_comes_twice(tables: dict[str, list[dict[str, str]]]) -> None:
    rows = [row for rows in tables.values() for row in rows]
    assert all(len({row[letter] for letter in "ABCD"}) == 4 for row in rows)
    assert len({row["question"] for row in rows}) == len(rows)


def test_the_suite_loads() -> None:
    suite = load_suite("shop-choice")
    assert sum(len(subject.items) for subject in suite.subjects) == 128  # type: ignore[union-attr]
