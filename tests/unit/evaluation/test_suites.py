from __future__ import annotations

import json
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest

from tests.unit.evaluation.builders import write_business
from tunegate.api.errors import DataError, UsageError
from tunegate.evaluation import load_suite, load_suites, shipped_suites
from tunegate.evaluation.business import BusinessSuite, records
from tunegate.evaluation.choice import ChoiceSuite
from tunegate.shop import DATA

ROWS = [
    {"id": str(i), "messages": [{"role": "user", "content": "?"}], "rules": [{"kind": "contains", "any": ["a"]}]}
    for i in range(3)
]


def test_the_shipped_suites_load() -> None:
    kinds = {name: type(load_suite(name)) for name in shipped_suites()}
    assert kinds["shop-choice"] is ChoiceSuite
    assert kinds["shop-en"] is kinds["shop-zh"] is BusinessSuite
    assert [load_suite(name).name for name in kinds] == list(kinds)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_five_tasks_are_for_people_to_judge(language: str) -> None:
    for task in ("guidance", "comparison", "after-sales", "safety", "small-talk"):
        suite = load_suite(f"shop-{task}-{language}")
        assert isinstance(suite, BusinessSuite)
        assert len(suite.criteria) >= 2
        assert len(suite) == len({question.id for question in suite.questions}) == 150
        assert all(question.reference and not question.rules for question in suite.questions)
        assert all(criterion.question for criterion in suite.criteria)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_no_two_questions_for_people_are_nearly_the_same(language: str) -> None:
    size = 5 if language == "en" else 2  # characters that say about as much
    asked = {id: grams(text, size) for id, text in for_people(language).items()}
    alike = [(one, other, shared(asked[one], asked[other])) for one, other in combinations(asked, 2)]
    assert [(one, other) for one, other, share in alike if share > 0.4] == []
    assert max(share for _, _, share in alike) > 0.05  # it can tell


@pytest.mark.parametrize("language", ["en", "zh"])
def test_no_question_for_people_was_trained_on(language: str) -> None:
    lines = (DATA / f"dialogues_{language}.jsonl").read_text().splitlines()
    turns = [message for line in lines for message in json.loads(line)["messages"] if message["role"] == "user"]
    trained = [grams(text, 3) for text in {message["content"] for message in turns}]
    asked = {id: grams(text, 3) for id, text in for_people(language).items()}
    assert [id for id in asked if any(shared(asked[id], other) >= 0.7 for other in trained)] == []


def for_people(language: str) -> dict[str, str]:
    """The last message of each question that people judge, by its id."""
    asked = {}
    for task in ("guidance", "comparison", "after-sales", "safety", "small-talk"):
        suite = load_suite(f"shop-{task}-{language}")
        assert isinstance(suite, BusinessSuite)
        asked |= {question.id: question.messages[-1].content for question in suite.questions}
    return asked


def grams(text: str, size: int) -> set[str]:
    return {text[start : start + size] for start in range(max(1, len(text) - size + 1))}


def shared(one: set[str], other: set[str]) -> float:
    return len(one & other) / len(one | other)


def test_questions_without_rules_are_answered_and_not_scored(tmp_path: Path) -> None:
    row = {key: value for key, value in ROWS[0].items() if key != "rules"}
    with pytest.raises(DataError, match=r"questions.jsonl:1 is not a usable question: .*criteria in suite.yaml"):
        load_suite(write_business(tmp_path, [row]))
    judged = load_suite(write_business(tmp_path, [row], criteria=[{"name": "tone"}]))
    assert isinstance(judged, BusinessSuite)
    (record,) = records(judged.questions, ["Hello."])
    assert record.scores == {"answered": 1}


def test_a_suite_is_read_from_its_folder(tmp_path: Path) -> None:
    suite = load_suite(write_business(tmp_path, ROWS, name="mine", max_tokens=9))
    assert isinstance(suite, BusinessSuite)
    assert (suite.name, suite.max_tokens, [question.id for question in suite.questions]) == ("mine", 9, ["0", "1", "2"])


def test_an_unknown_name_lists_the_shipped_suites() -> None:
    with pytest.raises(UsageError, match=f"No suite shop-fr; .*: {', '.join(shipped_suites())}"):
        load_suite("shop-fr")


def test_a_folder_that_is_no_suite_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no suite\.yaml"):
        load_suite(tmp_path)


@pytest.mark.parametrize(
    "about",
    [
        {"kind": "essay"},
        {"name": "../up"},
        {"language": ""},
        {"max_tokens": 0},
        {"shots": 6},
        {"split": "dev"},
        {"maxTokens": 9},
    ],
)
def test_an_unusable_suite_file_is_refused(tmp_path: Path, about: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=r"suite\.yaml is not a valid SuiteFile"):
        load_suite(write_business(tmp_path, ROWS, **about))


def test_a_limit_keeps_the_first_questions_and_changes_the_digest(tmp_path: Path) -> None:
    write_business(tmp_path, ROWS)
    whole, two, three = (load_suite(tmp_path, limit) for limit in (None, 2, 3))
    assert isinstance(two, BusinessSuite)
    assert [question.id for question in two.questions] == ["0", "1"]
    assert len({whole.digest, two.digest, three.digest}) == 3
    with pytest.raises(UsageError, match="leaves no question"):
        load_suite(tmp_path, 0)


def test_a_suite_that_is_named_twice_is_asked_once(tmp_path: Path) -> None:
    mine = write_business(tmp_path / "mine", ROWS, name="mine")
    assert [suite.name for suite in load_suites([mine, "shop-en", mine])] == ["mine", "shop-en"]
    with pytest.raises(UsageError, match="Two suites are called mine; change the name"):
        load_suites([mine, write_business(tmp_path / "other", ROWS, name="mine")])


def test_the_digest_covers_names_and_bytes_of_all_files(tmp_path: Path) -> None:
    first, second = (write_business(tmp_path / name, ROWS) for name in ("first", "second"))
    assert load_suite(first).digest == load_suite(second).digest
    (second / "notes.txt").write_text("")
    renamed = load_suite(second).digest
    assert renamed != load_suite(first).digest
    (second / "notes.txt").write_text("x")
    assert load_suite(second).digest not in (renamed, load_suite(first).digest)


def test_loading_suites_needs_no_torch() -> None:
    code = "import sys, tunegate.evaluation as e; e.load_suite('shop-en'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
