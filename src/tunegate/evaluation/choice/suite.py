"""Multiple-choice suites: letters chosen by a base model's next token, or read out of a chat model's answers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tunegate.api.codec import to_json
from tunegate.api.evaluation import Average, Evaluation, Metric, Record
from tunegate.evaluation import scores
from tunegate.evaluation.choice.exams import Mode, Wording
from tunegate.evaluation.choice.extraction import read_letter
from tunegate.evaluation.choice.prompts import LETTERS, Item, Subject, ask, letters, messages, text
from tunegate.evaluation.models import Model
from tunegate.evaluation.sheets import Sheets


@dataclass(frozen=True)
class ChoiceSuite:
    """An exam as it is asked. cot: with a chain of thought.

    max_tokens: the longest answer, where one is written. topic: the table that a report shows it in.
    """

    name: str
    digest: str
    subjects: tuple[Subject, ...]
    wording: Wording
    mode: Mode = "base"
    cot: bool = False
    max_tokens: int = 64
    topic: str = ""

    def __len__(self) -> int:
        """How many questions are asked."""
        return sum(len(subject.items) for subject in self.subjects)

    @property
    def averages(self) -> dict[str, Average]:
        """What accuracies of several subjects are means of: as the exam's authors have it, the other way, by area."""
        areas: dict[str, list[str]] = {}
        for subject in self.subjects:
            for area in subject.areas:
                areas.setdefault(area, []).append(subject.handle)
        is_macro = self.wording.average == "macro"
        return {
            "accuracy": Average(score="accuracy", is_macro=is_macro),
            f"accuracy_{'micro' if is_macro else 'macro'}": Average(score="accuracy", is_macro=not is_macro),
            **{
                f"accuracy_{area.lower().replace(' ', '_')}": Average(
                    score="accuracy", subjects=tuple(handles), is_macro=is_macro
                )
                for area, handles in areas.items()
            },
        }

    @property
    def prompts_digest(self) -> str:
        """sha256 of all that the model is given, in order."""
        digest = hashlib.sha256()
        for subject in self.subjects:
            for item in subject.items:
                digest.update(to_json(self.prompt(subject, item)))
        return f"sha256:{digest.hexdigest()}"

    def prompt(self, subject: Subject, item: Item) -> str | list[dict[str, str]]:
        """The exact text, or messages, of one question."""
        form = messages if self.mode == "chat" else text
        return form(self.wording, subject, item, cot=self.cot)


def measure(model: Model, suite: ChoiceSuite, sheets: Sheets) -> tuple[tuple[Metric, ...], tuple[Record, ...]]:
    """Let the model answer every question of `suite`, and score what it chose.

    Subject by subject: the questions of one share their instruction and solved examples.
    """
    measured: dict[str, list[Record]] = {}
    for subject in suite.subjects:
        chosen, written = _choose(model, suite, subject, sheets)
        measured[subject.handle] = [
            record(suite, subject, item, letter, output)
            for item, letter, output in zip(subject.items, chosen, written, strict=True)
        ]
    return metrics(suite, measured), tuple(record for records in measured.values() for record in records)


def _choose(
    model: Model, suite: ChoiceSuite, subject: Subject, sheets: Sheets
) -> tuple[Sequence[str | None], Sequence[str]]:
    """The letters, None where none was chosen, and what was written, where anything was."""
    wording, cot = suite.wording, suite.cot
    if suite.mode == "base" and not cot:
        choices = letters(wording)
        texts = [text(wording, subject, item, cot=False) for item in subject.items]
        sheet = sheets.sheet("choose", choices, questions=texts)
        model.choose(texts, choices, sheet)
        return [LETTERS[choices.index(letter)] if letter else None for letter in sheet.answers()], [""] * len(texts)
    if suite.mode == "chat":
        dialogues = [messages(wording, subject, item, cot=cot) for item in subject.items]
        sheet = sheets.sheet("answer", suite.max_tokens, questions=dialogues)
        model.answer(dialogues, suite.max_tokens, sheet)
        answers = sheet.answers()
    else:
        texts = [text(wording, subject, item, cot=True) for item in subject.items]
        sheet = sheets.sheet("complete", suite.max_tokens, questions=texts)
        model.complete(texts, suite.max_tokens, sheet)
        # A base model goes on with a question of its own after the answer: an empty line ends it.
        answers = [answer and answer.split("\n\n")[0] for answer in sheet.answers()]
    written = [answer or "" for answer in answers]
    return [read_letter(output, item.options) for output, item in zip(written, subject.items, strict=True)], written


def record(suite: ChoiceSuite, subject: Subject, item: Item, letter: str | None, output: str = "") -> Record:
    """Score the letter that was chosen; None is no answer, and wrong. Without a label there is no accuracy."""
    values = {"answered": float(letter is not None)}
    if item.answer:
        values = {"accuracy": float(letter == item.answer)} | values
    return Record(
        id=f"{subject.handle}/{item.id}",
        prompt=ask(suite.wording, item, cot=suite.cot),
        expected=item.answer,
        answer=letter or "",
        output=output,
        cluster=item.cluster,
        scores=values,
    )


def metrics(suite: ChoiceSuite, measured: Mapping[str, Sequence[Record]]) -> tuple[Metric, ...]:
    """`accuracy` as the exam's authors average it, the other average, each area and subject, and `answered`.

    `measured` maps a subject's handle to the records of its questions. Where no question has a label, `accuracy` has
    no value; subjects without labels are in no average.
    """
    labelled = {
        handle: scored
        for handle, records in measured.items()
        if (scored := [record for record in records if "accuracy" in record.scores])
    }
    answered = _share("answered", [record for records in measured.values() for record in records], "answered")
    if not labelled:
        return (Metric(name="accuracy", n=0), answered)
    averages = []
    for name, average in suite.averages.items():
        group = {handle: labelled[handle] for handle in average.subjects or labelled if handle in labelled}
        averages += [_average(name, average, group)] if group else []
    return (
        *averages,
        *(_share(f"accuracy/{handle}", records, "accuracy") for handle, records in labelled.items()),
        answered,
    )


def _average(name: str, average: Average, groups: Mapping[str, Sequence[Record]]) -> Metric:
    if average.is_macro:
        right = {handle: [record.scores[average.score] == 1 for record in group] for handle, group in groups.items()}
        clusters = {handle: [record.cluster for record in group] for handle, group in groups.items()}
        return scores.macro(name, right, clusters)
    return _share(name, [record for group in groups.values() for record in group], average.score)


def _share(name: str, records: Sequence[Record], score: str) -> Metric:
    right, clusters = [record.scores[score] == 1 for record in records], [record.cluster for record in records]
    return scores.share(name, right, clusters)


def submission(evaluation: Evaluation) -> dict[str, dict[str, str]]:
    """What C-Eval's site takes: subject -> id of the question -> letter; empty where the model chose none."""
    answers: dict[str, dict[str, str]] = {}
    for answered in evaluation.records:
        handle, _, number = answered.id.partition("/")
        answers.setdefault(handle, {})[number] = answered.answer
    return answers
