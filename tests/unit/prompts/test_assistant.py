"""A folder of prompts: which of its templates is taken, and what is refused before it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunegate.prompts.assistant import load_assistant

TEXT = "---\nvariables:\n  question: {{type: text, description: What is asked.}}\n---\n{}: {{{{ question | fence }}}}\n"


def written(folder: Path, **texts: str) -> Path:
    for name, text in texts.items():
        (folder / f"{name.replace('_', '-')}.prompt").write_text(TEXT.format(text))
    return folder


@pytest.mark.parametrize(
    ("files", "language", "taken"),
    [
        ({"answer_en": "Answer", "answer_zh": "回答"}, "zh", "回答"),
        ({"answer_zh": "回答", "answer": "Either"}, "en", "Either"),
        ({"answer_zh": "回答"}, "en", "回答"),
        ({"answer_en": "Answer", "rules": "Not one of them"}, "en", "Answer"),
    ],
)
def test_the_template_of_the_language_is_taken(
    tmp_path: Path, files: dict[str, str], language: str, taken: str
) -> None:
    assistant = load_assistant(written(tmp_path, **files))
    template = assistant.template("answer", language)
    assert template is not None
    assert template.sections[0].text.startswith(taken)
    assert assistant.template("react", language) is None
    assert "rules" not in assistant.templates
