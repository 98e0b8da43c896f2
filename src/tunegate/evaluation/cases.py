"""Cases of a prompt template: values, and the rules that a model's answer must keep.

The rules are those of business suites, so a case that proves itself can become a question of a suite. JSON or a result
that the template promises is checked in every case.
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Protocol
from xml.etree import ElementTree

import msgspec
from msgspec import Meta

from tunegate.api.codec import Resource, from_yaml
from tunegate.api.errors import DataError, EvaluationError, PromptError, UsageError
from tunegate.evaluation import rules
from tunegate.prompts import Message, Template, load_template, render
from tunegate.prompts.library import builtin_names
from tunegate.prompts.output import read_answer
from tunegate.prompts.template import Limits

_NOT_IN_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Case(Resource, frozen=True, kw_only=True, rename=None):
    """reference: the answer that `exact` and `rouge_l` rules compare with."""

    id: str
    variables: dict[str, Any] = {}
    rules: tuple[rules.Rule, ...] = ()
    reference: str = ""

    def __post_init__(self) -> None:
        if not self.reference and any(rules.needs_reference(rule) for rule in self.rules):
            raise ValueError("exact and rouge_l rules need a reference")


class CaseFile(Resource, frozen=True, kw_only=True, rename=None):
    """template: a file, from the folder of this one, or the name of one that comes with tunegate."""

    template: str
    cases: Annotated[tuple[Case, ...], Meta(min_length=1)]


class Asked(msgspec.Struct, frozen=True):
    """A case, and the messages that its values make."""

    case: Case
    messages: tuple[Message, ...]


class Outcome(Resource, frozen=True, kw_only=True):
    """What became of a case. failures: what the answer lacks, in words; error: why there is no answer."""

    id: str
    passed: bool
    failures: tuple[str, ...]
    messages: tuple[Message, ...]
    answer: str = ""
    error: str = ""
    seconds: float = 0.0


class Results(Resource, frozen=True, kw_only=True):
    """The outcomes of the cases in one file, for one version of a template."""

    file: str
    template: str
    digest: str
    outcomes: tuple[Outcome, ...]


class Answerer(Protocol):
    """What gives answers, wherever it computes."""

    def answer(self, messages: Sequence[Message], limits: Limits) -> str:
        """Raises EvaluationError when this question is refused, ServingError when nothing answers at all."""
        ...


def read_cases(path: Path) -> tuple[Template, tuple[Case, ...]]:
    """The template that a case file is about, and its cases.

    Raises UsageError or DataError for a file that can't be used, PromptError for such a template.
    """
    if not path.is_file():
        raise UsageError(f"There is no case file {path}; write one with a template and cases.")
    file = from_yaml(path.read_bytes(), CaseFile, str(path))
    ids = [case.id for case in file.cases]
    if twice := next((name for name in ids if ids.count(name) > 1), None):
        raise DataError(f"{path} has two cases called {twice}; give each an id of its own.")
    template = load_template(file.template if file.template in builtin_names() else path.parent / file.template)
    output = template.head.output
    for case in file.cases:
        if not case.rules and output.format == "text" and not output.after:
            raise DataError(f"{path}: the case {case.id} has no rules, so no answer could fail; write at least one.")
    return template, file.cases


def fill(template: Template, cases: Sequence[Case], nonce: str, **counting: Any) -> list[Asked]:
    """The messages of every case, before anything is asked. Raises PromptError naming the case."""
    asked = []
    for case in cases:
        try:
            asked.append(Asked(case, render(template, case.variables, nonce=nonce, **counting)))
        except PromptError as error:
            raise PromptError(f"The case {case.id}: {error}") from None
    return asked


def run(
    file: str,
    template: Template,
    questions: Sequence[Asked],
    model: Answerer,
    done: Callable[[Outcome], None],
    clock: Callable[[], float] = time.monotonic,
) -> Results:
    """Ask the model one case after the other; `done` gets each outcome. Raises ServingError when nothing answers."""
    outcomes = []
    for question in questions:
        begun = clock()
        try:
            answer = model.answer(question.messages, template.head.limits)
        except EvaluationError as error:
            facts: dict[str, Any] = {"passed": False, "failures": (), "error": str(error)}
        else:
            failures = judge(template, question.case, answer)
            facts = {"passed": not failures, "failures": failures, "answer": answer}
        seconds = round(clock() - begun, 3)
        outcomes.append(Outcome(id=question.case.id, messages=question.messages, seconds=seconds, **facts))
        done(outcomes[-1])
    return Results(file=file, template=template.source, digest=template.digest, outcomes=tuple(outcomes))


def judge(template: Template, case: Case, answer: str) -> tuple[str, ...]:
    """What the answer lacks. Rules see the result alone where the template says what it comes after."""
    output = template.head.output
    failures = []
    try:
        result = read_answer(answer, output)
    except PromptError as error:
        failures.append(str(error))
        result = answer
    text = result if output.after else answer
    for rule in case.rules:
        if not rules.passes(rule, text, case.reference):
            bound = {name: value for name, value in msgspec.to_builtins(rule).items() if name != "kind" and value}
            failures.append(
                f"{rule.__struct_config__.tag} {msgspec.json.encode(bound).decode() if bound else ''}".strip()
            )
    return tuple(failures)


def to_junit(results: Sequence[Results]) -> bytes:
    """The results as JUnit XML, which CI systems show: one suite for each case file."""
    root = ElementTree.Element("testsuites")
    for result in results:
        failed = sum(not outcome.passed and not outcome.error for outcome in result.outcomes)
        errors = sum(bool(outcome.error) for outcome in result.outcomes)
        counts = {"tests": len(result.outcomes), "failures": failed, "errors": errors}
        suite = _element(root, "testsuite", {"name": result.file, **counts})
        properties = _element(suite, "properties", {})
        _element(properties, "property", {"name": "template", "value": f"{result.template} {result.digest}"})
        for outcome in result.outcomes:
            about = {"classname": result.template, "name": outcome.id, "time": outcome.seconds}
            case = _element(suite, "testcase", about)
            if outcome.error:
                _element(case, "error", {"message": outcome.error})
            elif not outcome.passed:
                _element(case, "failure", {"message": "; ".join(outcome.failures)})
            _element(case, "system-out", {}, outcome.answer)
    written = io.BytesIO()
    ElementTree.ElementTree(root).write(written, encoding="utf-8", xml_declaration=True)
    return written.getvalue()


def _element(parent: Any, tag: str, attributes: Mapping[str, object], text: str = "") -> Any:
    """An element whose texts hold only what XML can."""
    element = ElementTree.SubElement(
        parent, tag, {name: _NOT_IN_XML.sub("�", str(value)) for name, value in attributes.items()}
    )
    element.text = _NOT_IN_XML.sub("�", text) or None
    return element
