"""The parts of a release in front of its weights, open: prompts, knowledge and tools.

They are opened and tried before anything is served: a part that can't be used ends the server with the reason.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from msgspec.structs import replace
from tokenizers import Tokenizer

from tunegate.agent import once
from tunegate.agent.catalogue import in_folder, load
from tunegate.agent.steps import LIMITS, Taken
from tunegate.agent.toolbox import build, check_once, places
from tunegate.agent.tools import Language, Tool
from tunegate.api import environment
from tunegate.api.errors import PromptError, UsageError
from tunegate.api.versions import KNOWLEDGE, Limits, Release
from tunegate.prompts import Message, Template, load_template, render
from tunegate.prompts.assistant import Assistant, load_assistant
from tunegate.prompts.library import SUFFIX
from tunegate.serving.features import ANY, EngineFeatures
from tunegate.store.artifacts import digest_of_folder

if TYPE_CHECKING:  # bm25s and scipy, which only an index needs
    from tunegate.knowledge.index import Index, Searcher

LANGUAGES: tuple[Language, ...] = ("en", "zh")
_USES = {"react": "react", "openai": "tools", "once": "search"}
_FOUND = [{"number": 1, "title": "?", "text": "?"}]
_TRIED = {"question": "?", "knowledge": _FOUND, "sources": "?", "tools": [], "current_date": "2026-01-01"}


@dataclass(frozen=True)
class Parts:
    """templates: what makes the prompt of a question; without any, it goes to the model as it is. tools: where there
    are some, an agent answers, in this dialect and within these limits. named: the parts as clients are told of them.
    tokenizer: the model's, where its files are here; without it, prompts are not measured in tokens.
    """

    templates: Mapping[Language, Template] = field(default_factory=dict)
    index: Searcher | None = None
    tools: Mapping[Language, tuple[Tool, ...]] = field(default_factory=dict)
    dialect: Literal["react", "openai", "once"] = "react"
    limits: Limits = LIMITS
    named: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: Tokenizer | None = None
    control_tokens: tuple[str, ...] = ()

    @property
    def searches(self) -> bool:
        """Whether something is looked for to answer from."""
        return self.index is not None or any(tool.function == "search" for tool in self.tools.get("en", ()))

    def dated(self, language: Language, today: date) -> Template:
        """The template of a question in this language, which knows the day."""
        template = self.templates[language]
        variables = dict(template.head.variables)
        if "current_date" in variables:
            variables["current_date"] = replace(variables["current_date"], default=today.isoformat())
        return replace(template, head=replace(template.head, variables=variables))

    def prompt(self, template: Template, given: Mapping[str, Any], nonce: str) -> tuple[Message, ...]:
        """The messages that `template` makes of what it takes of `given`. Raises PromptError as `render`."""
        taken = {name: value for name, value in given.items() if name in template.head.variables}
        return render(template, taken, nonce=nonce, count=self.counting, control_tokens=self.control_tokens)

    @property
    def counting(self) -> Callable[[str], int] | None:
        """What counts the tokens of a text; None where the tokenizer isn't here."""
        return self.count if self.tokenizer else None

    def count(self, text: str) -> int:
        """The tokens of a text, without what a chat template puts around it."""
        assert self.tokenizer is not None
        return len(self.tokenizer.encode(text, add_special_tokens=False))


def open_parts(
    release: Release, folder: Path | None, prompts: Path | None, knowledge: Path | None, features: EngineFeatures = ANY
) -> Parts | None:
    """The parts that `release` names, from the folders where they lie; None where it is weights alone.

    folder: of the weights, or None where an engine elsewhere has them. features: the engine's. Raises PromptError,
    KnowledgeError or UsageError for a part that can't be used.
    """
    if not (release.prompts or release.knowledge or release.tools):
        return None
    tokenizer = _tokenizer(folder)
    added = tokenizer.get_added_tokens_decoder().values() if tokenizer else ()
    index = None
    if knowledge:
        from tunegate.knowledge.library import open_index  # as above

        index = open_index(knowledge, os.environ.get(environment.EMBEDDER_URL))
    own = own_prompts(prompts) if prompts else None
    use, builtin = ("answer", "knowledge" if index else None)
    if release.tools:
        use = builtin = _USES[release.dialect]
        check_once(release.dialect, release.tools)
        _check_calls(release, features)
    parts = Parts(
        _templates(use, own, builtin),
        index,
        _tools(release, prompts, index),
        release.dialect,
        release.limits,
        _named(release, prompts),
        tokenizer,
        tuple(token.content for token in added if token.special),
    )
    _try(parts, release)
    return parts


def own_prompts(folder: Path) -> Assistant | None:
    """The templates of a release's folder of prompts; None of one that holds a catalogue alone.

    Raises as `load_assistant`.
    """
    return None if in_folder(folder) and not any(folder.glob(f"*{SUFFIX}")) else load_assistant(folder)


def _check_calls(release: Release, features: EngineFeatures) -> None:
    """Raise UsageError where the release asks by tool calls, and nobody would read those of its model."""
    if release.dialect == "openai" and not features.tool_calls:
        raise UsageError(
            "The release asks for tools by tool calls (dialect openai), which this model can't make on this engine; "
            "serve it with --engine vllm if its chat template knows tools, or make a version with --dialect react."
        )


def _named(release: Release, prompts: Path | None) -> dict[str, Any]:
    """The parts of a release, by digest where they have one."""
    named: dict[str, Any] = {"prompts": digest_of_folder(prompts)} if prompts else {}
    named |= {"knowledge": release.knowledge.digest} if release.knowledge else {}
    return named | ({"tools": list(release.tools)} if release.tools else {})


def _tools(release: Release, prompts: Path | None, index: Index | None) -> dict[Language, tuple[Tool, ...]]:
    """The tools that a release names, in both languages. Raises UsageError for one that lacks what it needs."""
    if not release.tools:
        return {}
    if index and KNOWLEDGE not in release.tools:
        raise UsageError(
            "The release has knowledge that none of its tools looks up; add knowledge to its tools, or take the "
            "knowledge out of the release."
        )
    path, found = in_folder(prompts) if prompts else None, places(os.environ)
    given = {"index": index, "catalogue": load(path) if path else None, "search": found.search, "http": found.http}
    return {language: build(release.tools, language=language, **given) for language in LANGUAGES}  # type: ignore[arg-type]


def _try(parts: Parts, release: Release) -> None:
    """Make each prompt once. Raises PromptError for one that can't be made, or that leaves out what is found."""
    if release.prompts and not parts.templates:
        raise PromptError(f"The release has prompts but none for answers; add answer{SUFFIX}, or tools to the release.")
    for language, template in parts.templates.items():
        if parts.dialect == "once":
            searched: dict[str, Any] = {"today": date(2026, 1, 1), "nonce": "0000", "count": parts.counting}
            once.prompt(Taken(1, "", "search", "?", "?", 0.0), language=language, template=template, **searched)
        else:
            parts.prompt(template, _TRIED, "0000")
        if parts.index and not parts.tools and not {"knowledge", "sources"} & set(template.head.variables):
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
