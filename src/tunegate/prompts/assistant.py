"""The prompts of a release: a folder of templates, of which a server takes one for each question.

`answer-en.prompt` and `answer-zh.prompt`, or `answer.prompt` for both languages, make the prompt of an answer,
`react-en.prompt` and the like that of a question for which tools are asked, and `tools-en.prompt` and the like the same
for a model that asks by OpenAI's tool calls, `search-en.prompt` and the like that of an answer from one search. What
else the folder holds, they include.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tunegate.api.errors import PromptError
from tunegate.prompts.library import SUFFIX, load_template
from tunegate.prompts.template import Template

GIVEN = {
    "answer": ("question", "knowledge", "sources", "current_date"),
    "react": ("question", "tools", "current_date"),
    "tools": ("question", "current_date"),
    "search": ("query", "web_results", "current_date", "reply_language"),
}
"""What a server gives a template for each use: the user's question (text), the chunks that were found (a list of
objects with number, title and text) and the same as one text, today (date), the tools (a list of objects with name and
description); after a search, the question as query (text), what was found (text) and its language by name (text)."""
LANGUAGES = ("en", "zh")


@dataclass(frozen=True)
class Assistant:
    """templates: by the name of their file, such as `answer-zh`."""

    templates: Mapping[str, Template]

    def template(self, use: str, language: str) -> Template | None:
        """The one for a use, such as `answer`, and a language; the one of another language rather than none."""
        names = (f"{use}-{language}", use, *(f"{use}-{other}" for other in LANGUAGES))
        return next((self.templates[name] for name in names if name in self.templates), None)


def load_assistant(folder: Path) -> Assistant:
    """Read a folder of templates. Raises PromptError for one that can't be used, naming file and line, or for none."""
    names = [f"{use}{language}" for use in GIVEN for language in ("", *(f"-{language}" for language in LANGUAGES))]
    paths = {path.stem: path for path in sorted(folder.glob(f"*{SUFFIX}")) if path.stem in names}
    if not paths:
        raise PromptError(
            f"{folder} has none of the templates that a server takes; name one {', '.join(names[:3])} or the like, "
            f"with {SUFFIX} at the end."
        )
    templates = {name: load_template(path) for name, path in paths.items()}
    for name, template in templates.items():
        given = GIVEN[name.split("-")[0]]
        for variable, about in template.head.variables.items():
            if variable not in given and about.is_required:
                raise PromptError(
                    f"{template.source}:{template.lines[f'variables.{variable}']}: no server gives {variable}; give it "
                    f"a default, or take one of: {', '.join(given)}."
                )
        if given[0] not in template.head.variables:
            raise PromptError(
                f"{template.source} leaves out what the user asks; declare the variable {given[0]}, and show it."
            )
    return Assistant(templates)
