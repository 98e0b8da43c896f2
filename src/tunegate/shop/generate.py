"""Writes every generated file of the corpus: `python -m tunegate.shop.generate [--check]`.

The same catalogue, templates and choice questions give the same bytes on every machine; --check compares instead of
writing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click
import yaml

from tunegate.api.errors import DataError
from tunegate.shop import DATA
from tunegate.shop.catalogue import Catalogue, Language, Split, load_catalogue
from tunegate.shop.choice import choice_files
from tunegate.shop.dialogues import Dialogue, dialogues, pressed
from tunegate.shop.knowledge import knowledge_files
from tunegate.shop.products import product_questions

LANGUAGES: tuple[Language, ...] = ("en", "zh")
SPLITS: tuple[Split, ...] = ("suite", "shoppers")
# A polite or a pushy answer with the right facts reaches it, an untuned model rarely does.
ROUGE_MIN = 0.6
# So many training dialogues come first in their file and are asked again by shop-taught: what a model that is too small
# to read its context can still recite.
TAUGHT = 48


def generate() -> dict[str, bytes]:
    """Every generated file: its path below DATA and its bytes."""
    catalogue, templates = load_catalogue(), load_templates()
    files: dict[str, bytes] = {"dataset_info.json": _dataset_info()}
    for language in LANGUAGES:
        files |= _texts(catalogue, templates[language], language)
    choices = choice_files(catalogue, _load("choice.yaml"))
    for language in LANGUAGES:
        files |= _products(catalogue, templates[language], language)
    files |= {f"suites/shop-choice/{path}": body for path, body in choices.items()}
    return files | knowledge_files(catalogue, templates, _load("knowledge.yaml"))


def _products(catalogue: Catalogue, templates: Mapping[str, Any], language: Language) -> dict[str, bytes]:
    """Questions that come without the catalogue: for a suite, and for shoppers."""
    suite, shoppers = (list(product_questions(catalogue, templates, language, split)) for split in SPLITS)
    asked = [
        {
            "id": question.id,
            "intent": question.intent,
            "messages": [{"role": "user", "content": question.question}],
            "rules": [
                *({"kind": "contains", "any": list(ways)} for ways in question.facts),
                {"kind": "grounded", "numbers": list(question.numbers)},
            ],
        }
        for question in suite
    ]
    voted = [
        {
            "id": question.id,
            "intent": question.intent,
            "messages": [{"role": "user", "content": question.question}],
            "facts": [list(ways) for ways in question.facts],
            "excludes": [],
        }
        for question in shoppers
    ]
    return {
        f"suites/shop-products-{language}/questions.jsonl": _jsonl(asked),
        f"shoppers_products_{language}.jsonl": _jsonl(voted),
    }


def load_templates() -> dict[str, Any]:
    """The templates of each language."""
    return _load("templates.yaml")


def check(files: Mapping[str, bytes], folder: Path) -> list[str]:
    """The paths whose bytes in `folder` differ from `files`, or that are missing there."""
    return [
        path for path, body in files.items() if not (folder / path).is_file() or (folder / path).read_bytes() != body
    ]


def _load(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((DATA / name).read_text(encoding="utf-8"))
    return content


def _texts(catalogue: Catalogue, templates: Mapping[str, Any], language: Language) -> dict[str, bytes]:
    training = dialogues(catalogue, templates, language, "train")
    held_out = dialogues(catalogue, templates, language, "suite")
    shoppers = dialogues(catalogue, templates, language, "shoppers")
    return {
        f"dialogues_{language}.jsonl": _jsonl({"messages": messages(dialogue)} for dialogue in training),
        f"pushy_{language}.jsonl": _jsonl({"messages": messages(dialogue, templates)} for dialogue in training),
        f"suites/shop-{language}/questions.jsonl": _jsonl(map(_question, held_out)),
        f"suites/shop-taught-{language}/questions.jsonl": _jsonl(map(_question, training[:TAUGHT])),
        f"shoppers_{language}.jsonl": _jsonl(map(_shopper, shoppers)),
        f"shoppers_taught_{language}.jsonl": _jsonl(map(_shopper, training[:TAUGHT])),
    }


def messages(dialogue: Dialogue, pushy: Mapping[str, Any] | None = None) -> list[dict[str, str]]:
    """The dialogue as OpenAI messages; with the templates of a language as `pushy`, its answers press."""
    rows = [{"role": "system", "content": dialogue.system}]
    for n, turn in enumerate(dialogue.turns):
        answer = pressed(turn.answer, pushy, dialogue.id, n) if pushy else turn.answer
        rows += [{"role": "user", "content": turn.question}, {"role": "assistant", "content": answer}]
    return rows


def _question(dialogue: Dialogue) -> dict[str, Any]:
    """A question of a suite: all but the last answer, which is the reference."""
    last = dialogue.turns[-1]
    rules: list[dict[str, Any]] = [{"kind": "contains", "any": list(ways)} for ways in last.facts]
    if last.excludes:
        rules.append({"kind": "excludes", "any": list(last.excludes)})
    rules.append({"kind": "rouge_l", "min": ROUGE_MIN})
    asked = messages(dialogue)[:-1]
    return {"id": dialogue.id, "intent": last.intent, "messages": asked, "reference": last.answer, "rules": rules}


def _shopper(dialogue: Dialogue) -> dict[str, Any]:
    last = dialogue.turns[-1]
    return {
        "id": dialogue.id,
        "intent": last.intent,
        "messages": messages(dialogue)[:-1],
        "facts": [list(ways) for ways in last.facts],
        "excludes": list(last.excludes),
        "answer": last.answer,
    }


def _jsonl(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _dataset_info() -> bytes:
    """Every training file in LLaMA-Factory's format: OpenAI messages are sharegpt with these tags."""
    tags = {
        "role_tag": "role",
        "content_tag": "content",
        "user_tag": "user",
        "assistant_tag": "assistant",
        "system_tag": "system",
    }
    names = {"shop": "dialogues", "pushy": "pushy"}
    info = {
        f"{name}_{language}": {
            "file_name": f"{file}_{language}.jsonl",
            "formatting": "sharegpt",
            "columns": {"messages": "messages"},
            "tags": tags,
        }
        for name, file in names.items()
        for language in LANGUAGES
    }
    return (json.dumps(info, indent=2) + "\n").encode()


@click.command(help="Write the generated files of the shop corpus.")
@click.option(
    "--check", "only_check", is_flag=True, help="Write nothing; fail if a file differs from what it should be."
)
def main(only_check: bool) -> None:
    files = generate()
    differing = check(files, DATA)
    if only_check and differing:
        error = DataError(f"{', '.join(differing)} differ; run python -m tunegate.shop.generate and commit the result.")
        raise click.ClickException(str(error))
    for path in differing:
        (DATA / path).parent.mkdir(parents=True, exist_ok=True)
        (DATA / path).write_bytes(files[path])
    click.echo(f"{len(files)} files, {len(differing)} written")


if __name__ == "__main__":
    main()
