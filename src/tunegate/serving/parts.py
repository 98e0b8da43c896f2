"""The parts of a release in front of its weights, open: prompts, knowledge and tools.

They are opened and tried before anything is served: a part that can't be used ends the server with the reason.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tokenizers import Tokenizer

from tunegate.api import environment
from tunegate.api.errors import PromptError
from tunegate.api.versions import Release
from tunegate.knowledge.index import Searcher
from tunegate.knowledge.library import open_index
from tunegate.prompts import Message, Template, load_template, render
from tunegate.prompts.assistant import Assistant, load_assistant
from tunegate.store.artifacts import digest_of_folder

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")
_FOUND = [{"number": 1, "title": "?", "text": "?"}]
_TRIED = {"question": "?", "knowledge": _FOUND, "sources": "?", "current_date": "2026-01-01"}


@dataclass(frozen=True)
class Parts:
    """templates: what makes the prompt of an answer; without any, a question goes to the model as it is. named: the
    parts as clients are told of them. tokenizer: the model's, where its files are here; without it, prompts are not
    measured in tokens.
    """

    templates: Mapping[Language, Template] = field(default_factory=dict)
    index: Searcher | None = None
    named: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: Tokenizer | None = None
    control_tokens: tuple[str, ...] = ()

    @property
    def searches(self) -> bool:
        """Whether something is looked for to answer from."""
        return self.index is not None

    def prompt(self, template: Template, given: Mapping[str, Any], nonce: str) -> tuple[Message, ...]:
        """The messages that `template` makes of what it takes of `given`. Raises PromptError as `render`."""
        taken = {name: value for name, value in given.items() if name in template.head.variables}
        count = self.count if self.tokenizer else None
        return render(template, taken, nonce=nonce, count=count, control_tokens=self.control_tokens)

    def count(self, text: str) -> int:
        """The tokens of a text, without what a chat template puts around it."""
        assert self.tokenizer is not None
        return len(self.tokenizer.encode(text, add_special_tokens=False))


def open_parts(release: Release, folder: Path | None, prompts: Path | None, knowledge: Path | None) -> Parts | None:
    """The parts that `release` names, from the folders where they lie; None where it is weights alone.

    folder: of the weights, or None where an engine elsewhere has them. Raises PromptError, KnowledgeError or UsageError
    for a part that can't be used.
    """
    if not (release.prompts or release.knowledge):
        return None
    tokenizer = _tokenizer(folder)
    added = tokenizer.get_added_tokens_decoder().values() if tokenizer else ()
    named = {"prompts": digest_of_folder(prompts)} if prompts else {}
    if release.knowledge:
        named["knowledge"] = release.knowledge.digest
    parts = Parts(
        _templates("answer", load_assistant(prompts) if prompts else None, "knowledge" if knowledge else None),
        open_index(knowledge, os.environ.get(environment.EMBEDDER_URL)) if knowledge else None,
        named,
        tokenizer,
        tuple(token.content for token in added if token.special),
    )
    _try(parts)
    return parts


def _try(parts: Parts) -> None:
    """Make each prompt once. Raises PromptError for one that can't be made, or that leaves out what is found."""
    for template in parts.templates.values():
        parts.prompt(template, _TRIED, "0000")
        if parts.index and not {"knowledge", "sources"} & set(template.head.variables):
            raise PromptError(
                f"{template.source} leaves out what is found in the release's knowledge; declare the variable "
                "knowledge and show it, or take the knowledge out of the release."
            )


def _templates(use: str, own: Assistant | None, builtin: str | None) -> dict[Language, Template]:
    """The release's own templates for a use, else those that come with tunegate."""
    found = {language: own.template(use, language) if own else None for language in LANGUAGES}
    if builtin and not any(found.values()):
        found = {language: load_template(f"{builtin}-{language}") for language in LANGUAGES}
    return {language: template for language, template in found.items() if template}


def _tokenizer(folder: Path | None) -> Tokenizer | None:
    path = folder / "tokenizer.json" if folder else None
    return Tokenizer.from_file(str(path)) if path and path.is_file() else None
