"""Releases of more than weights, for tests: prompts, and the shop's documents as knowledge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunegate.api.pinned import index_of
from tunegate.api.versions import Prompts, Release
from tunegate.knowledge.build import build
from tunegate.knowledge.measure import read_questions
from tunegate.knowledge.readers import read
from tunegate.serving.parts import Parts, open_parts
from tunegate.shop import DATA
from tunegate.store.artifacts import digest_of_folder

ANSWER = """---
variables:
  question: {type: text, description: What is asked.}
  knowledge: {type: list, description: What was found., default: []}
examples:
  pairs: [{user: "Is there tea?", assistant: "Yes, green tea [1]."}]
---
--- system
You sell kettles. Answer from what was found, and cite it by number.
--- examples
--- user
{% for it in knowledge %}
{{ it | fence }}
{% endfor %}
{{ question | fence }}
"""


def write_prompts(folder: Path, **texts: str) -> Path:
    """A release's folder of prompts; `answer_zh` becomes answer-zh.prompt."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (texts or {"answer": ANSWER}).items():
        (folder / f"{name.replace('_', '-')}.prompt").write_text(text)
    return folder


def build_index(folder: Path, *, calibrated: bool = True) -> Path:
    """The index of the shop's documents, by words alone."""
    questions = read_questions(DATA / "knowledge_questions.jsonl") if calibrated else None
    build(read([str(DATA / "knowledge")], folder.parent).documents, folder, questions=questions)
    return folder


def opened(prompts: Path | None = None, index: Path | None = None, **fields: Any) -> Parts:
    """The parts of a release that has these, and such fields."""
    release = Release(
        format="huggingface",
        prompts=Prompts() if prompts else None,
        knowledge=index_of("shop", digest_of_folder(index)) if index else None,
        **fields,
    )
    parts = open_parts(release, None, prompts, index)
    assert parts
    return parts
