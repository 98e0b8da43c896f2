"""A review as tasks of Label Studio, and back: the JSON it imports and exports, and the configuration to label with.

Tasks hold what reviewers see and no version. Sides are as the review has them: A is the first answer. Where people
decide what is to be learned, they edit the better answer that is there in place of writing a comment.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from xml.etree import ElementTree

import msgspec

from tunegate.api.errors import DataError
from tunegate.evaluation.criteria import Criterion
from tunegate.review.items import VERDICTS, Item, Review
from tunegate.review.marks import COMMENT, Mark, Marks

_NAMES: dict[int | str, str] = {"first": "A", "second": "B", "tie": "tie", "both_bad": "both_bad"}
_VALUES = {name: value for value, name in _NAMES.items()}
_YES_NO: dict[int | str, str] = {0: "no", 1: "yes"}
_SIDES = {"left": "first", "right": "second"}  # as its own Pairwise says it
_FIELDS = {"textarea": "text", "pairwise": "selected"}  # where a region's value is not called as its type


class Person(msgspec.Struct):
    """Who annotated: Label Studio gives a number, or this."""

    id: int | None = None
    email: str = ""


class Region(msgspec.Struct):
    """One answer to one of the configuration's controls."""

    from_name: str
    type: str
    value: dict[str, Any]


class Annotation(msgspec.Struct):
    """What one person said of a task. lead_time: seconds; was_cancelled: it was skipped; updated_at: ISO 8601."""

    result: list[Region] = []
    completed_by: int | Person | None = None
    lead_time: float | None = None
    was_cancelled: bool = False
    updated_at: str | None = None


class Task(msgspec.Struct):
    data: dict[str, Any]
    annotations: list[Annotation] = []


@dataclass(frozen=True)
class Said:
    """What an export says. skipped: annotations of people who left a task; gone: of items that were in an earlier state
    of this review."""

    marks: list[Mark]
    skipped: int
    gone: int


def configuration(review: Review) -> str:
    """The labeling configuration of a project for this review."""
    view = ElementTree.Element("View")
    for name in ("context", "question", *_answers(review), "reference"):
        ElementTree.SubElement(view, "Text", name=name, value=f"${name}")
    for criterion in review.criteria:
        ElementTree.SubElement(view, "Header", value=criterion.question or criterion.name)
        if _is_rating(review, criterion):
            about = {"name": criterion.name, "toName": "question", "maxRating": str(criterion.points)}
            ElementTree.SubElement(view, "Rating", about, required="true")
            continue
        about = {"name": criterion.name, "toName": "question", "choice": "single", "required": "true"}
        choices = ElementTree.SubElement(view, "Choices", about)
        for value in _NAMES.values() if review.mode == "pairs" else ("yes", "no"):
            ElementTree.SubElement(choices, "Choice", value=value)
    comment = {"name": COMMENT, "toName": "question"}
    if review.is_of_decisions:
        ElementTree.SubElement(view, "Header", value="The better answer; edit it where it is not good enough")
        comment |= {"value": "$reference", "rows": "4", "maxSubmissions": "1", "editable": "true"}
    ElementTree.SubElement(view, "TextArea", comment)
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"


def tasks(review: Review, marks: Marks) -> list[dict[str, Any]]:
    """One task for each item that people judge, with an annotation for each who did."""
    people = {name: number for number, name in enumerate(sorted({name for _, name, _ in marks}), start=1)}
    return [
        {
            "id": number,
            "data": _data(review, item),
            "annotations": [
                _annotation(review, person, found)
                for name, person in people.items()
                if (
                    found := {
                        c: mark for (digest, who, c), mark in marks.items() if (digest, who) == (item.digest, name)
                    }
                )
            ],
        }
        for number, item in enumerate(review.judged.values(), start=1)
    ]


def read_marks(review: Review, text: bytes, now: datetime, source: str, names: Mapping[str, str]) -> Said:
    """The marks in what Label Studio exported as JSON or JSON-MIN, the latest of a person last.

    names: what somebody is called here, by e-mail address or number there; others are called by those.
    Raises DataError for what is no such export, or of another review.
    """
    found: list[tuple[str, list[Mark]]] = []
    skipped = gone = 0
    for place, task in enumerate(_tasks_in(text, source, _controls(review)), start=1):
        where = f"{source}: task {place}"
        item = review.judged.get(str(task.data.get("item")))
        name = task.data.get("review", review.suite)
        if name != review.suite:
            raise DataError(f"{where} is of the review {name}, not of {review.suite}; export the project of this one.")
        if item is None and "review" not in task.data:
            raise DataError(f"{where} is of another review than {review.suite}; export the project of this one.")
        for annotation in task.annotations:
            if annotation.was_cancelled:
                skipped += 1
            elif item is None:
                gone += 1
            else:
                marks = _marks_of(review, item, annotation, _person(annotation.completed_by, names), now, where)
                found.append((annotation.updated_at or "", marks))
    found.sort(key=lambda each: each[0])  # JSON-MIN has the newest first
    return Said([mark for _, marks in found for mark in marks], skipped, gone)


def _controls(review: Review) -> list[str]:
    return [*(criterion.name for criterion in review.criteria), COMMENT]


def _tasks_in(text: bytes, source: str, controls: Sequence[str]) -> list[Task]:
    """The tasks of an export; a row of JSON-MIN, which is one annotation, as a task of its own."""
    try:
        rows = msgspec.json.decode(text, type=list[dict[str, Any]])
        return [_task_of_row(row, controls) if "annotation_id" in row else msgspec.convert(row, Task) for row in rows]
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise DataError(
            f"{source} is not an export of Label Studio ({error}); choose JSON or JSON-MIN there, which say who "
            "annotated."
        ) from None


def _task_of_row(row: Mapping[str, Any], controls: Sequence[str]) -> Task:
    """JSON-MIN has the fields of the task and the bare values of the controls beside each other."""
    regions = [
        {"from_name": name, "type": kind, "value": {kind: value}}
        for name in controls
        if name in row
        for kind, value in [_bare(row[name], "text" if name == COMMENT else "choices")]
    ]
    annotation = {"result": regions, **{name: row.get(name) for name in ("lead_time", "updated_at")}}
    task = {"data": dict(row), "annotations": [annotation | {"completed_by": _known(row.get("annotator"))}]}
    return msgspec.convert(task if row.get("annotation_id") is not None else {"data": dict(row)}, Task)


def _bare(value: Any, kind: str) -> tuple[str, Any]:
    """The kind of a control, and its value: JSON-MIN leaves both out where there is one."""
    if isinstance(value, list) and len(value) == 1:
        (value,) = value
    if isinstance(value, dict):
        return next((name, value[name]) for name in ("choices", "text", "rating", "selected") if name in value)
    return kind, value


def _known(annotator: Any) -> Any:
    return {"email": annotator} if isinstance(annotator, str) else annotator


def _marks_of(review: Review, item: Item, annotation: Annotation, who: str, now: datetime, where: str) -> list[Mark]:
    regions = {region.from_name: region for region in annotation.result}
    said = {name: _read(review, name, regions[name], where) for name in _controls(review) if name in regions}
    if review.is_of_decisions and said.get(COMMENT) == item.reference:
        del said[COMMENT]  # it was there to be edited, and was left as it is
    seconds = max(0.0, annotation.lead_time or 0.0) / max(1, len(said))
    return [
        Mark(
            id=hashlib.sha256(msgspec.json.encode([item.digest, who, name, value])).hexdigest()[:32],
            item=item.question,
            answers=item.digest,
            reviewer=who,
            criterion=name,
            value=value,
            seconds=round(seconds, 3),
            time=now,
        )
        for name, value in said.items()
    ]


def news(marks: Marks, found: Sequence[Mark]) -> list[Mark]:
    """Those of `found` that say something new; what they change, they replace."""
    known = dict(marks)
    new = []
    for mark in found:
        key = (mark.answers, mark.reviewer, mark.criterion)
        older = known.get(key)
        if older is not None and older.value == mark.value:
            continue
        if older is not None:
            mark = msgspec.structs.replace(mark, replaces=older.id, reason="changed in Label Studio")
        known[key] = mark
        new.append(mark)
    return new


def _answers(review: Review) -> list[str]:
    return ["answer_a", "answer_b"] if review.mode == "pairs" else ["answer"]


def _data(review: Review, item: Item) -> dict[str, str]:
    texts = dict(zip(_answers(review), (answer.text for answer in item.answers), strict=True))
    question = "\n\n".join(f"{message.role}: {message.content}" for message in item.messages)
    about = {"review": review.suite, "item": item.digest, "context": item.context, "reference": item.reference}
    return {**about, "question": question, **texts}


def _annotation(review: Review, person: int, found: Mapping[str, Mark]) -> dict[str, Any]:
    result = []
    for criterion in review.criteria:
        if (mark := found.get(criterion.name)) is not None:
            kind = "rating" if _is_rating(review, criterion) else "choices"
            value = mark.value if kind == "rating" else [_NAMES.get(mark.value) or _YES_NO[mark.value]]
            result.append(_region(mark, kind, value))
    if (comment := found.get(COMMENT)) is not None:
        result.append(_region(comment, "textarea", [comment.value], "text"))
    seconds = round(sum(mark.seconds for mark in found.values()), 3)
    return {"completed_by": person, "was_cancelled": False, "lead_time": seconds, "result": result}


def _region(mark: Mark, kind: str, value: object, field: str = "") -> dict[str, Any]:
    about = {"id": mark.id, "from_name": mark.criterion, "to_name": "question", "type": kind}
    return {**about, "value": {field or kind: value}}


def _is_rating(review: Review, criterion: Criterion) -> bool:
    return review.mode == "single" and criterion.points > 2


def _person(given: int | Person | None, names: Mapping[str, str]) -> str:
    known = (given.email or given.id) if isinstance(given, Person) else given
    return names.get(str(known)) or (known if isinstance(known, str) else f"Label Studio {known or ''}".strip())


def _read(review: Review, name: str, region: Region, where: str) -> int | str:
    """What a region says of a criterion. Raises DataError for what this review can't be given."""
    value = region.value.get(_FIELDS.get(region.type, region.type))
    if isinstance(value, list):
        value = "\n".join(map(str, value)) if name == COMMENT else value[0] if len(value) == 1 else value
    if name == COMMENT and isinstance(value, str):
        return value
    criterion = next((found for found in review.criteria if found.name == name), None)
    if criterion is not None and isinstance(value, str | int):
        read: int | str = value
        if review.mode == "pairs":
            read = _SIDES.get(str(value)) or _VALUES.get(str(value), "")
        elif not _is_rating(review, criterion):
            read = {word: number for number, word in _YES_NO.items()}.get(str(value), -1)
        if read in (VERDICTS if review.mode == "pairs" else criterion.values):
            return read
    raise DataError(f"{where} gives {name} {value!r}, which it can't be given; use the configuration of this review.")
