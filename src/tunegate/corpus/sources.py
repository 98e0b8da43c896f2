"""What a corpus is made from: questions of users, dialogues from elsewhere, and what must not be in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tunegate.api.errors import DataError, UsageError
from tunegate.corpus.filters import Pool, fault_of_text, normal
from tunegate.corpus.plan import Filters
from tunegate.evaluation import load_suite
from tunegate.evaluation.business import BusinessSuite
from tunegate.feedback.redact import redact
from tunegate.files import disk_errors_as


def choose_seeds(
    found: Iterable[tuple[str, str]], similarity: float, compared: Callable[[int], None] = lambda count: None
) -> tuple[list[dict[str, str]], Counter[str]]:
    """The questions that differ from each other, each with its source, and how many others there were, by why not.

    found: sources and texts. What tells who somebody is is taken out first. compared: gets how many more were.
    """
    left_out, plain = Counter[str](), list[tuple[str, str]]()
    for source, text in found:
        question = redact(text.strip())
        if reason := fault_of_text(question, Filters()) or ("" if normal(question) else "empty"):
            left_out[reason] += 1
        else:
            plain.append((source, question))
    new = Pool(similarity).add_all([question for _, question in plain], compared)
    if near := new.count(False):
        left_out["near-duplicate"] = near
    rows = [{"question": text, "source": source} for (source, text), is_new in zip(plain, new, strict=True) if is_new]
    return rows, left_out


def read_seeds(paths: Sequence[Path]) -> list[str]:
    """The questions of files: JSON lines with `question`, or a question a line. Raises DataError, also where all files
    together hold none."""
    found = []
    for path in paths:
        for number, line in _lines(path):
            if path.suffix == ".jsonl":
                try:
                    line = str(msgspec.json.decode(line, type=dict[str, Any])["question"])
                except (msgspec.DecodeError, KeyError):
                    raise DataError(f'{path}:{number} is not {{"question": TEXT}}; correct it.') from None
            found.append(line.strip())
    if paths and not found:
        raise DataError("The plan's seeds hold no question; a teacher needs a few to go by.")
    return found


class Dialogue(msgspec.Struct, frozen=True):
    """A line of a file of dialogues. messages: in OpenAI's form. source, reviewers: the review that it is from, and who
    said yes to it."""

    messages: tuple[dict[str, Any], ...]
    source: str = ""
    reviewers: tuple[str, ...] = ()


def read_dialogues(path: Path) -> list[Dialogue]:
    """Raises DataError that names the line."""
    rows = []
    for number, line in _lines(path):
        try:
            rows.append(msgspec.json.decode(line, type=Dialogue))
        except msgspec.DecodeError:
            raise DataError(f"{path}:{number} is no dialogue with `messages`; correct it.") from None
    return rows


def questions_of(suite: str) -> dict[str, str]:
    """What a suite asks, by id. Raises UsageError for one that is no business suite."""
    loaded = load_suite(suite)
    if not isinstance(loaded, BusinessSuite):
        raise UsageError(f"{suite} is no business suite, whose questions could be looked for; leave it out of suites.")
    return {question.id: question.messages[-1].content for question in loaded.questions}


def read_text(path: Path) -> str:
    """Raises DataError for a file that can't be read, or is not UTF-8."""
    with disk_errors_as(DataError, path, "name a file that is there."):
        try:
            return path.read_text("utf-8-sig")
        except UnicodeDecodeError:
            remedy = f"convert it with: iconv -f GB18030 -t UTF-8 {path.name} -o NEW"
            raise DataError(f"{path} is not UTF-8; {remedy}") from None


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    return ((number, line) for number, line in enumerate(read_text(path).splitlines(), start=1) if line.strip())
