from __future__ import annotations

import random
from pathlib import Path

import pytest

from tunegate.api.errors import KnowledgeError, UsageError
from tunegate.knowledge.build import build
from tunegate.knowledge.evidence import chance, learn
from tunegate.knowledge.index import Index
from tunegate.knowledge.measure import measure, read_questions, separation
from tunegate.knowledge.readers import read
from tunegate.shop import DATA


def test_the_shop_is_searched_as_well_as_the_page_says(tmp_path: Path) -> None:
    build(read([str(DATA / "knowledge")], tmp_path).documents, tmp_path / "index")
    measured = measure(Index(tmp_path / "index"), "", read_questions(DATA / "knowledge_questions.jsonl"))

    numbers = {metric.name: metric.value or 0.0 for metric in measured.metrics}
    assert numbers["recall_at_5"] >= 0.95
    assert numbers["recall_at_5/item-zh"] == numbers["recall_at_5/item-en"] == 1
    assert numbers["answered"] > 0.9
    assert numbers["refused"] < 0.2  # it is not calibrated


def test_a_calibrated_index_tells_what_it_does_not_know(tmp_path: Path) -> None:
    """Learned from every second question, measured on the others."""
    lines = (DATA / "knowledge_questions.jsonl").read_bytes().splitlines(keepends=True)
    for name, half in (("learn.jsonl", lines[::2]), ("check.jsonl", lines[1::2])):
        (tmp_path / name).write_bytes(b"".join(half))
    documents = read([str(DATA / "knowledge")], tmp_path).documents
    build(documents, tmp_path / "index", questions=read_questions(tmp_path / "learn.jsonl"))

    measured = measure(Index(tmp_path / "index"), "", read_questions(tmp_path / "check.jsonl"))

    numbers = {metric.name: metric.value or 0.0 for metric in measured.metrics}
    assert numbers["answered"] > 0.85
    assert numbers["refused"] > 0.8
    assert numbers["separation"] > 0.9


def test_weights_are_of_what_tells_questions_apart() -> None:
    chances = random.Random(1)  # noqa: S311
    answerable = [(0.8, chances.random(), 0.3 + chances.random() / 2, 0.0) for _ in range(40)]
    others = [(0.8, chances.random(), chances.random() / 2, 0.0) for _ in range(10)]

    weights = learn(answerable, others)

    assert weights == learn(answerable, others)
    assert weights[2] > 2 * abs(weights[1])
    assert chance(weights, (0.8, 0.5, 0.7, 0.0)) > 0.7
    assert chance(weights, (0.8, 0.5, 0.1, 0.0)) < 0.3


def test_few_questions_that_all_differ_have_finite_weights() -> None:
    weights = learn([(0.9, 1.0, 1.0, 0.0)], [(0.1, 0.0, 0.0, 1.0)])

    assert all(abs(weight) < 20 for weight in weights)
    assert chance(weights, (0.9, 1.0, 1.0, 0.0)) > 0.5 > chance(weights, (0.1, 0.0, 0.0, 1.0))


@pytest.mark.parametrize(
    ("good", "bad", "apart"), [([2, 3], [0, 1], 1), ([0], [1], 0), ([1], [1], 0.5), ([], [1], None), ([1], [], None)]
)
def test_separation(good: list[float], bad: list[float], apart: float | None) -> None:
    assert separation(good, bad) == apart


def test_questions_that_can_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    with pytest.raises(KnowledgeError, match="name a file of questions"):
        read_questions(path)
    path.write_text("\n")
    with pytest.raises(KnowledgeError, match="holds no questions"):
        read_questions(path)
    path.write_text('{"id": "1", "question": "a"}\n{"id": "2"}\n')
    with pytest.raises(UsageError, match=r"questions\.jsonl, line 2"):
        read_questions(path)
