"""The files of the shop-choice suite, in C-Eval's layout: questions from choice.yaml and computed ones."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from tunegate.shop.catalogue import Catalogue
from tunegate.shop.questions import COMPUTED, Choice, comparison, translation
from tunegate.shop.seeded_choice import shuffled

LETTERS = "ABCD"
DEV, VAL = 5, 16
COLUMNS = ("id", "question", *LETTERS, "answer", "explanation")


def choice_files(catalogue: Catalogue, source: Mapping[str, Any]) -> dict[str, bytes]:
    """Path below the suite's folder and bytes: the subject mapping, and dev and val of each subject."""
    numbers, words = range(DEV + VAL), list(source["words"].items())
    choices = {
        subject: [Choice(row[0], tuple(row[1:5]), "".join(row[5:])) for row in rows]
        for subject, rows in source["written"].items()
    }
    choices["shopping_english"] = [translation(words, i) for i in range(len(words))]
    choices["catalogue_reading"] = [comparison(catalogue, i) for i in numbers]
    for subject, kinds in COMPUTED.items():
        choices[subject] = [kinds[i % len(kinds)](i) for i in numbers]
    files = {"subject_mapping.json": (json.dumps(source["subjects"], ensure_ascii=False, indent=2) + "\n").encode()}
    for subject in source["subjects"]:
        files[f"dev/{subject}_dev.csv"] = _table(choices[subject][:DEV], subject, "dev")
        files[f"val/{subject}_val.csv"] = _table(choices[subject][DEV : DEV + VAL], subject, "val")
    return files


def _table(choices: Sequence[Choice], subject: str, split: str) -> bytes:
    """One CSV file. Each letter is right equally often; only dev explains, as in C-Eval."""
    answers = shuffled((LETTERS * len(choices))[: len(choices)], "answer", subject, split)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for i, (choice, answer) in enumerate(zip(choices, answers, strict=True)):
        options = shuffled(choice.options[1:], "options", subject, split, i)
        options.insert(LETTERS.index(answer), choice.options[0])
        writer.writerow([i, choice.question, *options, answer, choice.why if split == "dev" else ""])
    return out.getvalue().encode()
