"""A version made of another one without training: the same weights under other prompts, knowledge, tools or defaults.

It is a version like any other, so gates, canary and rollback are as for new weights. What no server could serve is
refused before anything is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from tunegate.agent.toolbox import NAMES as TOOLS
from tunegate.agent.toolbox import check_once
from tunegate.api.codec import changed
from tunegate.api.errors import PromptError, UsageError
from tunegate.api.pinned import index_of
from tunegate.api.versions import KNOWLEDGE, Derived, Knowledge, Limits, ModelVersion, Prompts, Release
from tunegate.files import default_cache
from tunegate.models.derive import check_name, made_of
from tunegate.prompts.lint import lint
from tunegate.serving.parts import open_parts, own_prompts
from tunegate.store import Progress, Store
from tunegate.store.release import cached_index, fetch_index, fetch_prompts, read_release

Part = Literal["prompts", "knowledge", "tools"]
PARTS: tuple[Part, ...] = ("prompts", "knowledge", "tools")
GENERATION = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "max_tokens",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
)
"""What a release may set for requests that leave it open; an engine that can't do one says so when it is started."""


@dataclass(frozen=True)
class Changes:
    """What is to be different of a release; None and what is empty stay as they are.

    prompts: a folder that `load_assistant` reads. knowledge: an index in the store, NAME or NAME@DIGEST. without: parts
    to take out. limits, generation: single values, over those that were there.
    """

    prompts: Path | None = None
    knowledge: str | None = None
    tools: Sequence[str] = ()
    without: Sequence[Part] = ()
    dialect: Literal["react", "openai", "once"] | None = None
    limits: Mapping[str, float] = field(default_factory=dict)
    system_prompt: str | None = None
    generation: Mapping[str, float] = field(default_factory=dict)


def derive(
    store: Store, version: ModelVersion, name: str, changes: Changes, progress: Progress | None = None
) -> ModelVersion:
    """Publish `version` with `changes` as `name`. Its weights are copied within the store; equal inputs are one digest.

    Raises UsageError, PromptError naming file and line, KnowledgeError for an index that can't be searched here,
    NotFoundError and DigestError naming the index, or StoreError.
    """
    check_name(name, version)
    before = read_release(store, version)
    knowledge = find_index(store, changes.knowledge) if changes.knowledge else None
    release = apply(before, changes, knowledge)
    if release == before and not changes.prompts:
        raise UsageError(f"{name} would be {version.name} again; say what is to be different, such as --prompt FOLDER.")
    if changes.prompts:
        check_prompts(changes.prompts)
    if release.prompts or release.knowledge:
        open_as_served(store, version, release, changes.prompts)
    derived = Derived(uri=version.uri, digest=version.digest)
    return store.publish(
        store.manifest(version.digest),
        name,
        release=release,
        producer=made_of(store, derived, name, "tunegate release derive"),
        prompts=changes.prompts,
        progress=progress,
    )


def apply(release: Release, changes: Changes, knowledge: Knowledge | None) -> Release:
    """The release with the changes; knowledge: the index that they name. Raises UsageError for what can't be served."""
    if unknown := [name for name in changes.generation if name not in GENERATION]:
        raise UsageError(f"A release sets no {unknown[0]}; it may set: {', '.join(GENERATION)}.")
    parts: dict[str, Any] = {
        "prompts": Prompts() if changes.prompts else release.prompts,
        "knowledge": knowledge or release.knowledge,
        "tools": tuple(dict.fromkeys(changes.tools)) or release.tools,
    }
    parts |= {part: () if part == "tools" else None for part in changes.without}
    if unknown := [name for name in parts["tools"] if name not in TOOLS]:
        raise UsageError(f"There is no tool {unknown[0]!r} for a release; the tools are: {', '.join(TOOLS)}.")
    if KNOWLEDGE in parts["tools"] and not parts["knowledge"]:
        raise UsageError("The tool knowledge needs an index; give one with --knowledge NAME, or leave the tool out.")
    if "catalogue" in parts["tools"] and not parts["prompts"]:
        raise UsageError("The tool catalogue needs a table; give a folder with catalogue.csv by --prompt.")
    check_once(dialect := changes.dialect or release.dialect, parts["tools"])
    return changed(
        release,
        **parts,
        dialect=dialect,
        limits=_limits(release.limits, changes.limits),
        system_prompt=release.system_prompt if changes.system_prompt is None else changes.system_prompt,
        generation={**release.generation, **changes.generation},
    )


def find_index(store: Store, name: str) -> Knowledge:
    """The index that NAME or NAME@DIGEST stands for in the store. Raises NotFoundError, or DigestError."""
    return index_of(name.partition("@")[0], store.artifacts(KNOWLEDGE).find(name).digest)


def open_as_served(store: Store, version: ModelVersion, release: Release, prompts: Path | None) -> None:
    """Open the parts as a server does, which can't be started with others. prompts: those that `version` has not.

    Raises PromptError, KnowledgeError, or DigestError naming the damaged file of the index.
    """
    cache = default_cache()
    folder = prompts or fetch_prompts(store, version, release, cache)
    index = fetch_index(store, release, cached_index(release.knowledge, cache)) if release.knowledge else None
    open_parts(release, None, folder, index)


def check_prompts(folder: Path) -> None:
    """Raise PromptError for a folder of prompts that can't be read, or in which lint finds something."""
    own = own_prompts(folder)
    for template in own.templates.values() if own else ():
        if found := lint(template):
            named = f"{template.source}:{found[0].line}: {found[0].rule}: {found[0].reason}"
            raise PromptError(f"{named} ({len(found)} findings); mend it, and see: tunegate prompts lint FILE.")


def _limits(limits: Limits, changes: Mapping[str, float]) -> Limits:
    try:
        return msgspec.convert({**msgspec.to_builtins(limits), **changes}, Limits)
    except msgspec.ValidationError as error:
        raise UsageError(f"A release has no such limits ({error}); set steps, seconds or tokens.") from None
