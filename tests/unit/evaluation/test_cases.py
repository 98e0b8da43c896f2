from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tunegate.api.errors import DataError, EvaluationError, PromptError, TunegateError, UsageError
from tunegate.evaluation import cases
from tunegate.evaluation.cases import Case, Results
from tunegate.prompts import Message, Template, parse_template
from tunegate.prompts.template import Limits

KETTLE = """---
variables:
  product: {type: text, description: What is asked about.}
limits: {max_tokens: 9}
---
What does it cost? {{ product | fence }}
"""
JSON = "---\noutput:\n  format: json\n  schema: {type: array}\n---\nThe JSON list of all kettles.\n"
STEPS = "---\noutput: {after: The answer is}\n---\nHow many?\n"


class Scripted:
    """Gives the answers it is made with, in order, and keeps what it was asked; an error is raised."""

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[Sequence[Message], Limits]] = []

    def answer(self, messages: Sequence[Message], limits: Limits) -> str:
        self.asked.append((messages, limits))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def write(folder: Path, text: str, template: str = KETTLE) -> Path:
    (folder / "kettle.prompt").write_text(template)
    path = folder / "cases.yaml"
    path.write_text(text)
    return path


def judged(template: str, answer: str, **case: Any) -> tuple[str, ...]:
    made = parse_template(template, "shop.prompt")
    rules = tuple(cases.rules.Contains(all=(part,)) for part in case.pop("contains", ()))
    return cases.judge(made, Case(id="a", rules=rules, **case), answer)


def outcomes(template: Template, found: Sequence[Case], model: Scripted) -> Results:
    asked = cases.fill(template, found, "8f3a")
    reported: list[cases.Outcome] = []
    results = cases.run("cases.yaml", template, asked, model, reported.append, clock=lambda: 0.0)
    assert tuple(reported) == results.outcomes
    return results


def test_cases_are_asked_as_the_template_says_and_judged_by_their_rules(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """template: kettle.prompt
cases:
- id: cheap
  variables: {product: KT-1}
  rules:
  - {kind: contains, any: ["$26", "26元"]}
  - {kind: excludes, any: [free]}
- id: same
  variables: {product: KT-2}
  rules: [{kind: exact}]
  reference: $30
""",
    )
    model = Scripted("It is free.", "$30")

    template, found = cases.read_cases(path)
    result = outcomes(template, found, model)

    assert [outcome.passed for outcome in result.outcomes] == [False, True]
    assert result.outcomes[0].failures == ('contains {"any":["$26","26元"]}', 'excludes {"any":["free"]}')
    assert model.asked[0] == (
        (Message("user", "What does it cost? <data-8f3a>\nKT-1\n</data-8f3a>"),),
        Limits(max_tokens=9),
    )


def test_json_and_results_that_a_template_promises_are_always_checked() -> None:
    assert judged(JSON, 'Here: ["KT-1"]') == ()
    (wrong,) = judged(JSON, "None.")
    assert wrong.startswith("The answer is not the JSON that is asked for: it holds no JSON; ")
    assert judged(STEPS, "5 + 6 is 11. The answer is 11", contains=["11"]) == ()
    assert judged(STEPS, "5 + 6 is 11. The answer is 12", contains=["11"]) == ('contains {"all":["11"]}',)
    assert len(judged(STEPS, "It is 11.")) == 1


def test_a_question_that_is_refused_is_an_error_of_its_case(tmp_path: Path) -> None:
    template = parse_template(JSON, "list.prompt")
    model = Scripted(EvaluationError("too long"), "[]")

    result = outcomes(template, [Case(id="a"), Case(id="b")], model)

    assert [(outcome.error, outcome.passed) for outcome in result.outcomes] == [("too long", False), ("", True)]


def test_results_are_junit_whatever_a_model_says() -> None:
    template = parse_template(JSON, "list.prompt")
    result = outcomes(
        template, [Case(id=f"{i}<&") for i in range(3)], Scripted("\x00\ud800[", "[]", EvaluationError("x"))
    )

    suite = ElementTree.fromstring(cases.to_junit([result]))[0]  # noqa: S314 (ours)

    assert {name: suite.attrib[name] for name in ("tests", "failures", "errors")} == {
        "tests": "3",
        "failures": "1",
        "errors": "1",
    }
    tests = suite.findall("testcase")
    assert [test.attrib["name"] for test in tests] == ["0<&", "1<&", "2<&"]
    assert [child.tag for test in tests for child in test] == [
        "failure",
        "system-out",
        "system-out",
        "error",
        "system-out",
    ]
    assert tests[0].findtext("system-out") == "��["


REFUSED: dict[str, tuple[str, type[TunegateError], str]] = {
    "no-yaml": ("{a", UsageError, "cases.yaml is not a valid CaseFile"),
    "not-utf8": ("\udcff", UsageError, "cases.yaml is not a valid CaseFile"),
    "no-cases": ("template: kettle.prompt\ncases: []", UsageError, "length >= 1"),
    "unknown-field": ("template: kettle.prompt\ncases: [{id: a, vars: {}}]", UsageError, "unknown field `vars`"),
    "unknown-rule": (
        "template: kettle.prompt\ncases: [{id: a, rules: [{kind: vibes}]}]",
        UsageError,
        "Invalid value 'vibes'",
    ),
    "no-reference": (
        "template: kettle.prompt\ncases: [{id: a, rules: [{kind: exact}]}]",
        UsageError,
        "exact and rouge_l rules need a reference",
    ),
    "no-rules": ("template: kettle.prompt\ncases: [{id: a}]", DataError, "the case a has no rules"),
    "twice": (
        "template: kettle.prompt\ncases: [{id: a, rules: [{kind: excludes, any: [b]}]}, {id: a}]",
        DataError,
        "two cases called a",
    ),
    "no-template": ("template: nothing\ncases: [{id: a}]", UsageError, "There is no template"),
}


@pytest.mark.parametrize(("text", "kind", "message"), REFUSED.values(), ids=REFUSED)
def test_a_file_that_holds_no_cases_says_why(
    text: str, kind: type[TunegateError], message: str, tmp_path: Path
) -> None:
    path = write(tmp_path, "")
    path.write_bytes(text.encode(errors="surrogateescape"))

    with pytest.raises(kind, match=message):
        cases.read_cases(path)


def test_a_file_that_is_not_there_and_a_template_that_comes_along(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no case file"):
        cases.read_cases(tmp_path / "cases.yaml")
    assert cases.read_cases(write(tmp_path, "template: books-en\ncases: [{id: a}]"))[0].source == "books-en"


def test_missing_values_name_the_case() -> None:
    with pytest.raises(PromptError, match=r"The case a: .*product \(text\) is missing"):
        cases.fill(parse_template(KETTLE, "kettle.prompt"), [Case(id="a")], "8f3a")
