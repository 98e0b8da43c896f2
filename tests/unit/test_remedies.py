"""What a program that we start lacks, its log says, and it is ready once it has that."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.refusals import refused, without_story
from tests.waiting import wait_for
from tunegate.processes import Child

PROGRAM = """
import pathlib, sys, time
needed, wrong = sys.argv[1:]
if not pathlib.Path(needed).exists():
    print(f"{needed} is missing", flush=True)
    if wrong == "ends":
        raise SystemExit(3)
else:
    print("ready", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize(
    ("wrong", "words", "seconds"), [("ends", " ended with status ", 20), ("waits", " was not ready after ", 0.5)]
)
def test_the_log_that_a_message_names_says_what_a_program_lacks(
    wrong: str, words: str, seconds: float, tmp_path: Path
) -> None:
    needed = tmp_path / "needed"

    def start() -> Child:
        argv = [sys.executable, "-c", PROGRAM, str(needed), wrong]
        return Child.start("the program", argv, log=tmp_path / "log")

    with start() as child, refused(words) as caught:
        wait_for(lambda: "is missing" in child.tail(), what="the program's own words")
        child.wait_until(lambda: child.tail() == "ready", seconds=seconds)
    (log,) = re.findall(r"\(log: (.+?)\)", str(caught.value))
    assert f"{needed} is missing" in Path(log).read_text()
    needed.touch()
    with start() as child:
        child.wait_until(lambda: child.tail() == "ready", seconds=120)


@pytest.mark.parametrize("room", ["processes", "files", "logs"])
def test_every_message_has_its_story(room: str) -> None:
    assert without_story(room, Path(__file__)) == []
