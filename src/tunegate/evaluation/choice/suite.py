"""Multiple-choice suites in C-Eval's file layout, asked and scored as C-Eval's official answer-only evaluator does.

Source: github.com/hkust-nlp/ceval, evaluators/llama.py. One difference: the prompt names the subject in Chinese, as
the paper does, where that code passes the file's handle.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tunegate.api.errors import DataError
from tunegate.api.evaluation import Metric, Record
from tunegate.evaluation import scores
from tunegate.evaluation.models import Done, Model

LETTERS = ("A", "B", "C", "D")
MAPPING = "subject_mapping.json"
Split = Literal["val", "test"]


@dataclass(frozen=True)
class Item:
    """One question, its four options in the order of LETTERS, and the right letter."""

    id: str
    question: str
    options: tuple[str, str, str, str]
    answer: str


@dataclass(frozen=True)
class Subject:
    """handle: its name in file names; title: its Chinese name; shots: the solved examples that come first."""

    handle: str
    title: str
    shots: tuple[Item, ...]
    items: tuple[Item, ...]


@dataclass(frozen=True)
class ChoiceSuite:
    name: str
    digest: str
    subjects: tuple[Subject, ...]

    def __len__(self) -> int:
        """How many questions are asked."""
        return sum(len(subject.items) for subject in self.subjects)


def read_subjects(folder: Path, split: Split, shots: int, limit: int | None) -> tuple[Subject, ...]:
    """Read every subject that the mapping names; `limit` keeps the first questions over all subjects.

    Raises DataError naming the file, and the line where there is one, that can't be used.
    """
    titles = _read_titles(folder / MAPPING)
    for path in sorted((folder / split).glob("*.csv")):
        if path.name.removesuffix(f"_{split}.csv") not in titles:
            raise DataError(f"{path} belongs to no subject of {MAPPING}; name it there or remove the file.")
    subjects: list[Subject] = []
    left = limit
    for handle, title in titles.items():
        items = _read_items(folder / split / f"{handle}_{split}.csv")[:left]
        examples = _read_items(folder / "dev" / f"{handle}_dev.csv")[:shots] if shots else ()
        if len(examples) < shots:
            raise DataError(
                f"{folder}/dev/{handle}_dev.csv has {len(examples)} of the {shots} examples; lower shots in suite.yaml."
            )
        left = None if left is None else left - len(items)
        if items:
            subjects.append(Subject(handle=handle, title=title, shots=examples, items=items))
    return tuple(subjects)


def measure(model: Model, suite: ChoiceSuite, done: Done) -> tuple[tuple[Metric, ...], tuple[Record, ...]]:
    """Let the model choose a letter for every question of `suite`, and score them.

    Subject by subject: the questions of one share their instruction and solved examples.
    """
    measured: dict[str, list[Record]] = {}
    for subject in suite.subjects:
        letters = model.choose([prompt(subject, item) for item in subject.items], LETTERS, done)
        pairs = zip(subject.items, letters, strict=True)
        measured[subject.handle] = [record(subject, item, letter) for item, letter in pairs]
    return metrics(measured), tuple(record for records in measured.values() for record in records)


def prompt(subject: Subject, item: Item) -> str:
    """The official answer-only prompt: instruction, solved examples, question, and `答案：` to be continued."""
    head = f"以下是中国关于{subject.title}考试的单项选择题，请选出其中的正确答案。\n\n"
    return head + "".join(f"{_ask(shot)}{shot.answer}\n\n" for shot in subject.shots) + _ask(item)


def record(subject: Subject, item: Item, letter: str | None) -> Record:
    """Score the letter that was chosen; None, where the model's numbers were not finite, is no answer, and wrong."""
    return Record(
        id=f"{subject.handle}/{item.id}",
        prompt=_ask(item),
        expected=item.answer,
        answer=letter or "",
        scores={"accuracy": float(letter == item.answer), "answered": float(letter is not None)},
    )


def metrics(measured: Mapping[str, Sequence[Record]]) -> tuple[Metric, ...]:
    """`accuracy` (mean over subjects, as C-Eval reports), `accuracy_micro` (over questions), each subject, `answered`.

    `measured` maps a subject's handle to the records of its questions.
    """
    right = {handle: [record.scores["accuracy"] == 1 for record in records] for handle, records in measured.items()}
    answered = [record.scores["answered"] == 1 for records in measured.values() for record in records]
    return (
        scores.macro("accuracy", right),
        scores.share("accuracy_micro", [is_right for group in right.values() for is_right in group]),
        *(scores.share(f"accuracy/{handle}", group) for handle, group in right.items()),
        scores.share("answered", answered),
    )


def _ask(item: Item) -> str:
    options = "".join(f"\n{letter}. {option}" for letter, option in zip(LETTERS, item.options, strict=True))
    return f"{item.question}{options}\n答案："


def _read_titles(path: Path) -> dict[str, str]:
    """handle -> Chinese title, from C-Eval's handle -> [English, Chinese, category]."""
    try:
        mapping = json.loads(path.read_text(encoding="utf-8"))
        titles = {str(handle): str(names[1]) for handle, names in mapping.items()}
    except OSError:
        raise DataError(f"{path} is missing; it maps each subject to [English, Chinese, category].") from None
    except (ValueError, AttributeError, IndexError, KeyError, TypeError):
        raise DataError(f"{path} can't be read; it must map each subject to [English, Chinese, category].") from None
    if not titles:
        raise DataError(f"{path} names no subject; a suite needs at least one.")
    return titles


def _read_items(path: Path) -> tuple[Item, ...]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            items = [_item(path, reader.line_num, row) for row in reader]
    except OSError:
        raise DataError(f"{path} is missing; C-Eval's layout has one such file for each subject.") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a CSV file in UTF-8: {error}.") from None
    if not items:
        raise DataError(f"{path} holds no question.")
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise DataError(f"{path} repeats the id {item.id}; give each question its own.")
        seen.add(item.id)
    return tuple(items)


def _item(path: Path, line: int, row: Mapping[str | None, str | None]) -> Item:
    names = ("id", "question", *LETTERS)
    missing = [name for name in names if not row.get(name)]
    if missing or None in row:
        reason = f"without {', '.join(missing)}" if missing else "with more columns than its header"
        raise DataError(f"{path}:{line} is a question {reason}.")
    answer = (row.get("answer") or "").strip()
    if not answer:
        raise DataError(f"{path}:{line} has no answer, so it can't be scored; set split: val in suite.yaml.")
    if answer not in LETTERS:
        raise DataError(f"{path}:{line} has the answer {answer!r}; it must be one of A, B, C and D.")
    key, question, a, b, c, d = (row[name] or "" for name in names)
    return Item(id=key, question=question, options=(a, b, c, d), answer=answer)
