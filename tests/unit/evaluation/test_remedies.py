"""What a suite is refused for, it is taken without once the message's words were followed."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.refusals import refused
from tests.unit.evaluation.builders import SUBJECTS, write_business, write_choice
from tunegate.evaluation.suites import load_suite, load_suites, shipped_suites

ROW = {"id": "a", "messages": [{"role": "user", "content": "Price?"}], "rules": [{"kind": "contains", "any": ["5"]}]}
HEADER = "id,question,A,B,C,D,answer\n"
GOOD = HEADER + "0,Which?,a,b,c,d,A\n"
Do = Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    """Refused in these words, and what is done instead."""

    words: str
    wrong: Do
    right: Do


def business(*rows: dict[str, Any]) -> Do:
    return lambda folder: load_suite(write_business(folder, rows))


def without_questions(folder: Path) -> None:
    write_business(folder, [ROW])
    (folder / "questions.jsonl").unlink()
    load_suite(folder)


def choice(text: str | None = None, name: str = "val/care_val.csv", **about: object) -> Do:
    """A suite of choices, one file of which has this text; None leaves it, and "" takes it away."""

    def load(folder: Path) -> None:
        write_choice(folder, SUBJECTS, **about)
        if text:
            (folder / name).write_text(text)
        elif text == "":
            (folder / name).unlink()
        load_suite(folder)

    return load


def elsewhere(data: str) -> Do:
    """Its questions in another folder, or in a zip."""

    def load(folder: Path) -> None:
        folder.mkdir()
        write_choice(folder / "data", SUBJECTS)
        (folder / "broken.zip").write_text("no zip")
        with zipfile.ZipFile(folder / "good.zip", "w") as archive:
            for path in (folder / "data").rglob("*.*"):
                archive.write(path, path.relative_to(folder / "data"))
        shutil.copy(folder / "data/suite.yaml", folder / "suite.yaml")
        with (folder / "suite.yaml").open("a") as stream:
            stream.write(f"data: {data}\n")
        load_suite(folder)

    return load


def both(*names: str) -> Do:
    def load(folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        load_suites([write_business(folder / f"{number}", [ROW], name=name) for number, name in enumerate(names)])

    return load


CASES = [
    Case("a business suite keeps its questions there", without_questions, business(ROW)),
    Case("holds no question; a suite needs at least one", business(), business(ROW)),
    Case("; give each question its own", business(ROW, ROW), business(ROW, {**ROW, "id": "b"})),
    Case(" is not a usable question: ", business({"id": "a"}), business(ROW)),
    Case("; name it there or remove the file", choice(GOOD, "val/more_val.csv"), choice()),
    Case("; add what is missing, or name what is there in", choice("", "val/care_val.csv"), choice()),
    Case("; lower shots in suite.yaml", choice(shots=2), choice(shots=1)),
    Case("have no explanation; set shots: 0 or cot: false", choice(cot="true"), choice(cot="false")),
    Case("have no explanation; set shots: 0 or cot: false", choice(cot="true"), choice(cot="true", shots=0)),
    Case("; correct `data` in suite.yaml", elsewhere("nowhere"), elsewhere("data")),
    Case(" is neither a folder nor a zip that can be read", elsewhere("broken.zip"), elsewhere("good.zip")),
    Case(" names no subject; a suite needs at least one", choice("{}", "subject_mapping.json"), choice()),
    Case("; it must map each subject to [English, Chinese", choice("[]", "subject_mapping.json"), choice()),
    Case(" repeats the id ", choice(GOOD + "0,Which?,a,b,c,d,A\n"), choice(GOOD + "1,Which?,a,b,c,d,A\n")),
    Case(" is a question with more columns than its header", choice(HEADER + "0,Which?,a,b,c,d,A,x,y\n"), choice(GOOD)),
    Case(" has no column ", choice("id,question,A,B,C,answer\n0,Which?,a,b,c,A\n"), choice(GOOD)),
    Case("so it can't be scored; complete it", choice(HEADER + "0,Which?,a,b,c,d,\n"), choice(GOOD)),
    Case("; it must be one of A, B, C and D", choice(HEADER + "0,Which?,a,b,c,d,E\n"), choice(GOOD)),
    Case(" is a question without ", choice(HEADER + "0,,a,b,c,d,A\n"), choice(GOOD)),
    Case("; change the name in one suite.yaml", both("shop-a", "shop-a"), both("shop-a", "shop-b")),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.words)
def test_what_the_message_says_is_taken(case: Case, tmp_path: Path) -> None:
    with refused(case.words):
        case.wrong(tmp_path / "suite")
    shutil.rmtree(tmp_path / "suite")
    case.right(tmp_path / "suite")


def test_a_suite_is_named_as_the_message_lists_it(tmp_path: Path) -> None:
    with refused("; give a folder with a suite.yaml or a shipped one: ") as caught:
        load_suite("shop-xx")
    assert str(caught.value).endswith(", ".join(shipped_suites()) + ".")
    load_suite(shipped_suites()[0])
    with refused("so it is not a suite; see a shipped one for an example"):
        load_suite(tmp_path)
    with refused(" leaves no question; give 1 or more"):
        load_suite(shipped_suites()[0], 0)
    load_suite(shipped_suites()[0], 1)
