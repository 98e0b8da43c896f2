from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunegate.api.errors import DataError
from tunegate.evaluation.business import Message, Question, dialogue, metrics, read_questions, records
from tunegate.evaluation.rules import Contains, Exact, Excludes, RougeL, Rule

ASK = [{"role": "user", "content": "Price?"}]
ROW = {"id": "a", "messages": ASK, "reference": "$5", "rules": [{"kind": "exact"}]}


def _question(id: str, *rules: Rule, reference: str = "") -> Question:
    return Question(id=id, messages=(Message(role="user", content=f"{id}?"),), rules=rules, reference=reference)


QUESTIONS = (
    _question("a", Contains(any=("yes",)), Excludes(any=("no",)), reference="yes"),
    _question("b", Exact(), RougeL(min=0.9), reference="yes"),
    _question("c", Excludes(any=("no",)), Excludes(any=("never",))),
)


def test_an_answer_passes_when_it_keeps_every_rule() -> None:
    a, b, c = records(QUESTIONS, ["Yes!", "yet", "Never."])
    assert a.scores == {"score": 1, "answered": 1, "contains": 1, "excludes": 1, "rouge_l": pytest.approx(6 / 7)}
    assert b.scores == {"score": 0, "answered": 1, "exact": 0, "rouge_l_min": 0, "rouge_l": pytest.approx(4 / 6)}
    assert c.scores == {"score": 0, "answered": 1, "excludes": 0}, "of two rules of a kind, both must be kept"
    assert (a.id, a.prompt, a.expected, a.answer) == ("a", "a?", "yes", "Yes!")


def test_no_answer_fails_also_the_rules_that_an_empty_one_keeps() -> None:
    (record,) = records(QUESTIONS[2:], [None])
    assert record.answer == ""
    assert record.scores == {"score": 0, "answered": 0, "excludes": 0}


def test_metrics_count_each_rule_where_it_is_asked() -> None:
    found = {metric.name: metric for metric in metrics(records(QUESTIONS, ["yes", "yes", None]))}
    assert {name: (metric.value, metric.n) for name, metric in found.items()} == {
        "score": (pytest.approx(2 / 3), 3),
        "answered": (pytest.approx(2 / 3), 3),
        "contains": (1, 1),
        "excludes": (0.5, 2),
        "exact": (1, 1),
        "rouge_l_min": (1, 1),
        "rouge_l": (1, 2),
    }


def test_a_dialogue_gets_the_system_prompt_unless_it_has_its_own() -> None:
    own = Question(
        id="o", rules=(Contains(any=("a",)),), messages=(Message(role="system", content="S"), *QUESTIONS[0].messages)
    )
    assert dialogue(QUESTIONS[0], "P") == [{"role": "system", "content": "P"}, {"role": "user", "content": "a?"}]
    assert dialogue(QUESTIONS[0], "") == [{"role": "user", "content": "a?"}]
    assert dialogue(own, "P")[0]["content"] == "S"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        pytest.param("{", "2 is not a usable question: Input data was truncated", id="not JSON"),
        pytest.param(b"\xff\xfe", "2 is not a usable question", id="not UTF-8"),
        pytest.param(ROW | {"rules": [{"kind": "regex"}]}, r"regex.*rules\[0\]", id="unknown rule"),
        pytest.param(ROW | {"rules": []}, "at least one rule", id="no rule"),
        pytest.param(ROW | {"rule": 1}, "unknown field `rule`", id="misspelled field"),
        pytest.param(ROW | {"messages": []}, "must end with the user's question", id="no message"),
        pytest.param(
            ROW | {"messages": [*ASK, {"role": "assistant", "content": "x"}]}, "must end with", id="ends in an answer"
        ),
        pytest.param(ROW | {"messages": [{"role": "bot", "content": "x"}]}, "bot", id="unknown role"),
        pytest.param(ROW | {"reference": ""}, "need a reference", id="exact without reference"),
        pytest.param(
            ROW | {"reference": "", "rules": [{"kind": "rouge_l", "min": 0.5}]}, "need a reference", id="rouge without"
        ),
        pytest.param({key: ROW[key] for key in ("id", "rules")}, "messages", id="missing field"),
        pytest.param(ROW | {"id": "first"}, ":2 repeats the id first", id="duplicate id"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, row: object, reason: str) -> None:
    path = tmp_path / "questions.jsonl"
    text = row if isinstance(row, bytes) else (row if isinstance(row, str) else json.dumps(row)).encode()
    path.write_bytes(json.dumps(ROW | {"id": "first"}).encode() + b"\n" + text + b"\n")
    with pytest.raises(DataError, match=reason) as caught:
        read_questions(path)
    assert str(caught.value).startswith(f"{path}:2")


def test_an_empty_or_missing_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    with pytest.raises(DataError, match="is missing"):
        read_questions(path)
    path.write_text("\n\n")
    with pytest.raises(DataError, match="holds no question"):
        read_questions(path)


def test_questions_of_one_conversation_are_no_more_than_they_tell(tmp_path: Path) -> None:
    rows = [ROW | {"id": str(number), "cluster": f"talk-{number // 5}"} for number in range(20)]
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    questions = read_questions(tmp_path / "questions.jsonl")

    found = records(questions, ["$5"] * 10 + ["$6"] * 10)
    score = metrics(found)[0]

    assert [record.cluster for record in found][::5] == ["talk-0", "talk-1", "talk-2", "talk-3"]
    assert (score.name, score.value, score.n, score.clusters) == ("score", 0.5, 20, 4)
    assert (score.high or 1) - (score.low or 0) > 0.75  # of 20 that stand alone 0.4
