from __future__ import annotations

from pathlib import Path

import msgspec

from tests.builders import make_version
from tests.unit.evaluation.builders import LEARNED, SUBJECTS, SYSTEM, write_business, write_choice
from tunegate.api.codec import from_json, to_json
from tunegate.api.evaluation import Evaluation
from tunegate.evaluation import load_suite
from tunegate.evaluation.models.local import LocalModel
from tunegate.evaluation.run import evaluate

VERSION = make_version("test")


def _value(evaluation: Evaluation, name: str) -> float | None:
    metric = evaluation.metric(name)
    assert metric is not None
    return metric.value


def test_a_model_that_learned_the_answers_gets_full_marks(
    learned: Path, business_folder: Path, choice_folder: Path
) -> None:
    seen: list[tuple[int, int]] = []
    suites = [load_suite(business_folder), load_suite(choice_folder)]
    model = LocalModel(learned, batch_size=2)
    business, choice = evaluate(model, VERSION, suites, progress=lambda n, of: seen.append((n, of)))
    assert [_value(business, name) for name in ("score", "exact", "excludes", "rouge_l", "answered")] == [1] * 5
    assert [_value(choice, name) for name in ("accuracy", "accuracy_micro", "accuracy/care", "answered")] == [1] * 4
    assert (business.digest, business.suite, business.suite_digest) == (
        VERSION.digest,
        "shop-test",
        suites[0].digest,
    )
    assert [record.answer for record in choice.records] == [letter for group in SUBJECTS.values() for letter in group]
    assert seen[-1] == (8, 8)
    assert from_json(to_json(business), Evaluation, "test") == business


def test_other_right_letters_are_all_wrong(learned: Path, tmp_path: Path) -> None:
    turned = {handle: ["ABCD"["DABC".index(letter)] for letter in group] for handle, group in SUBJECTS.items()}
    write_choice(tmp_path, turned)
    (turned_round,) = evaluate(LocalModel(learned), VERSION, [load_suite(tmp_path)])
    assert _value(turned_round, "accuracy") == 0


def test_questions_are_asked_under_the_system_prompt(learned: Path, tmp_path: Path) -> None:
    question, answer = next(iter(LEARNED.items()))
    row = {
        "id": "a",
        "messages": [{"role": "user", "content": question}],
        "reference": answer,
        "rules": [{"kind": "exact"}],
    }
    model, suites = LocalModel(learned), [load_suite(write_business(tmp_path, [row]))]
    (learnt,) = evaluate(model, VERSION, suites, system_prompt=SYSTEM)
    (other,) = evaluate(model, VERSION, suites, system_prompt="水壶" * 200)
    assert (_value(learnt, "score"), _value(other, "score")) == (1, 0)


def test_a_model_that_is_not_finite_fails_everything_and_keeps_a_result(
    broken: Path, business_folder: Path, choice_folder: Path
) -> None:
    suites = [load_suite(business_folder), load_suite(choice_folder)]
    business, choice = evaluate(LocalModel(broken), VERSION, suites)
    assert [_value(business, name) for name in ("score", "excludes", "answered")] == [0, 0, 0]
    assert [_value(choice, name) for name in ("accuracy", "answered")] == [0, 0]
    assert msgspec.json.decode(to_json(choice), type=Evaluation) == choice
