"""Business suites: dialogues with reference answers and rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from tunegate.api.errors import DataError
from tunegate.api.evaluation import Metric, Record
from tunegate.evaluation import rules, scores
from tunegate.evaluation.criteria import Criterion
from tunegate.evaluation.models import Dialogue, Model
from tunegate.evaluation.sheets import Sheets

QUESTIONS = "questions.jsonl"


class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    role: Literal["system", "user", "assistant"]
    content: str


class Question(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A dialogue that ends in what the user asks; an answer passes when it keeps every rule.

    rules: none where people alone judge the answers, by the criteria of the suite.
    cluster: what it belongs to together with others, such as one passage or conversation; their answers are alike.
    context: what people who judge the answer should know, and the model is not told.
    """

    id: str
    messages: tuple[Message, ...]
    rules: tuple[rules.Rule, ...] = ()
    intent: str = ""
    reference: str = ""
    cluster: str = ""
    context: str = ""

    def __post_init__(self) -> None:
        if not self.messages or self.messages[-1].role != "user":
            raise ValueError("messages must end with the user's question")
        if not self.reference and any(rules.needs_reference(rule) for rule in self.rules):
            raise ValueError("exact and rouge_l rules need a reference")


@dataclass(frozen=True)
class BusinessSuite:
    """max_tokens: the longest answer, in tokens. criteria: what people judge; rules need none.

    topic: the table that a report shows it in. is_rendered: questions are prompts already, which the weights are asked
    without the parts of a release.
    """

    name: str
    digest: str
    max_tokens: int
    questions: tuple[Question, ...]
    criteria: tuple[Criterion, ...] = ()
    topic: str = "business"
    is_rendered: bool = False

    def __len__(self) -> int:
        """How many questions are asked."""
        return len(self.questions)


def read_questions(path: Path, *, judged: bool = False) -> tuple[Question, ...]:
    """Read one question a line; `judged`: by people, so that rules may be missing.

    Raises DataError naming file and line of the first that can't be used.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing; a business suite keeps its questions there, one JSON object a line.")
    questions: dict[str, Question] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            question = msgspec.json.decode(line, type=Question)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DataError(f"{path}:{number} is not a usable question: {error}; correct it.") from None
        if not question.rules and not judged:
            remedy = "at least one rule is needed, or criteria in suite.yaml for people, or no answer could fail"
            raise DataError(f"{path}:{number} is not a usable question: {remedy}.")
        if question.id in questions:
            raise DataError(f"{path}:{number} repeats the id {question.id}; give each question its own.")
        questions[question.id] = question
    if not questions:
        raise DataError(f"{path} holds no question; a suite needs at least one.")
    return tuple(questions.values())


def measure(
    model: Model, suite: BusinessSuite, system_prompt: str, sheets: Sheets
) -> tuple[tuple[Metric, ...], tuple[Record, ...]]:
    """Ask the model every question of `suite` under `system_prompt`, and score its answers."""
    dialogues = [dialogue(question, system_prompt) for question in suite.questions]
    sheet = sheets.sheet("answer", suite.max_tokens, questions=dialogues)
    model.answer(dialogues, suite.max_tokens, sheet)
    measured = records(suite.questions, sheet.answers())
    return metrics(measured), measured


def dialogue(question: Question, system_prompt: str) -> Dialogue:
    """What the model is given: the messages, under the release's system prompt unless they begin with their own."""
    messages = [{"role": message.role, "content": message.content} for message in question.messages]
    if system_prompt and messages[0]["role"] != "system":
        return [{"role": "system", "content": system_prompt}, *messages]
    return messages


def records(questions: Sequence[Question], answers: Sequence[str | None]) -> tuple[Record, ...]:
    """Score each answer. None says that the model gave none because its numbers were not finite: it fails every rule,
    also those that an empty answer would keep.
    """
    measured = []
    for question, answer in zip(questions, answers, strict=True):
        text = answer or ""
        kept: dict[str, bool] = {}
        for rule in question.rules:
            passed = answer is not None and rules.passes(rule, text, question.reference)
            kept[rules.kind(rule)] = kept.get(rules.kind(rule), True) and passed
        values = {"score": float(all(kept.values()))} if kept else {}
        values["answered"] = float(answer is not None)
        values |= {name: float(passed) for name, passed in kept.items()}
        if question.reference:
            values["rouge_l"] = rules.rouge_l(text, question.reference)
        asked = question.messages[-1].content
        measured.append(
            Record(
                id=question.id,
                prompt=asked,
                expected=question.reference,
                answer=text,
                cluster=question.cluster,
                scores=values,
            )
        )
    return tuple(measured)


def metrics(measured: Sequence[Record]) -> tuple[Metric, ...]:
    """`score` (all rules kept), `rouge_l` (mean F1), each rule's share among its questions, and `answered`."""
    names = dict.fromkeys(name for record in measured for name in record.scores)  # each once, `score` first
    found = []
    for name in names:
        scored = [record for record in measured if name in record.scores]
        values, clusters = [record.scores[name] for record in scored], [record.cluster for record in scored]
        if name == "rouge_l":
            found.append(scores.mean(name, values, clusters))
        else:
            found.append(scores.share(name, [value == 1 for value in values], clusters))
    return tuple(sorted(found, key=lambda metric: metric.name == "rouge_l"))
