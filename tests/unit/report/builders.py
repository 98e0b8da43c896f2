"""Evaluations for reports: say which answers are right, take the rest as given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.builders import START, at
from tunegate.api.evaluation import Evaluation, Record
from tunegate.evaluation import scores
from tunegate.evaluation.choice import Item, Subject, wording
from tunegate.evaluation.choice.exams import names
from tunegate.evaluation.choice.suite import ChoiceSuite, metrics
from tunegate.report.contents import LeakCheck, Report, Version, make_report

NAMES = names("ceval")


def make_version(place: int, **facts: Any) -> Version:
    return Version(
        letter="ABCDEFG"[place], name=f"shop/run-{place}/checkpoint-1", digest=f"sha256:{place:064x}", **facts
    )


def evaluation(
    place: int, name: str, found: Sequence[Any], records: Sequence[Record], questions: str = "1", **about: Any
) -> Evaluation:
    fields: dict[str, Any] = {"settings": "float32-cpu-32", "started": START, "seconds": 4.0, "topic": "business"}
    return Evaluation(
        version=f"shop/run-{place}/checkpoint-1",
        digest=f"sha256:{place:064x}",
        suite=name,
        suite_digest="sha256:" + questions * 64,
        metrics=tuple(found),
        records=tuple(records),
        code_version="test",
        **{**fields, **about},
    )


def business(place: int, right: str, name: str = "shop", **about: Any) -> Evaluation:
    """`right`: a `+` for each answer that keeps every rule, anything else for the others."""
    records = [
        Record(
            id=f"q{number}",
            prompt=f"Which kettle is number {number} of the catalogue?",
            expected="The Serin kettle.",
            answer="The Serin kettle." if sign == "+" else "I don't know.",
            scores={"score": float(sign == "+"), "answered": 1.0},
        )
        for number, sign in enumerate(right)
    ]
    found = [scores.share("score", [sign == "+" for sign in right]), scores.share("answered", [True] * len(right))]
    return evaluation(place, name, found, records, **about)


def exam(place: int, right: Mapping[str, str], name: str = "ceval", **about: Any) -> Evaluation:
    """As C-Eval has it, subject by subject; `.` is an answer that names no letter."""
    subjects = []
    measured: dict[str, list[Record]] = {}
    for handle, signs in right.items():
        title, areas = NAMES[handle].title, NAMES[handle].areas
        items = tuple(Item(f"{n}", f"问题{n}", ("甲", "乙", "丙", "丁"), "A") for n in range(len(signs)))
        subjects.append(Subject(handle, title, (), items, areas))
        measured[handle] = [
            Record(
                id=f"{handle}/{n}",
                prompt=f"在{title}中，第{n}个说法里哪一个是正确的说法？\nA. 甲\nB. 乙\nC. 丙\nD. 丁\n答案：",
                expected="A",
                answer={"+": "A", ".": ""}.get(sign, "C"),
                scores={"accuracy": float(sign == "+"), "answered": float(sign != ".")},
            )
            for n, sign in enumerate(signs)
        ]
    asked = wording("ceval", "official", "base", cot=False)
    suite = ChoiceSuite(name, "", tuple(subjects), asked)
    records = [record for rows in measured.values() for record in rows]
    facts = {"topic": "chinese", "averages": suite.averages, **about}
    return evaluation(place, name, metrics(suite, measured), records, **facts)


def make(*versions: Sequence[Evaluation], leaks: LeakCheck = LeakCheck(), **facts: Any) -> Report:  # noqa: B008 - frozen
    """The report on versions by their evaluations."""
    listed = [make_version(place, **facts) for place in range(len(versions))]
    return make_report(listed, [{found.suite: found for found in each} for each in versions], leaks)


LATER = at(60)
