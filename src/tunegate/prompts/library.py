"""Templates from files: one's own, and those that come with tunegate."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

from tunegate.api.errors import PromptError, UsageError
from tunegate.prompts.fence import find_control_token
from tunegate.prompts.template import Template, parse_template

SUFFIX = ".prompt"
BUILTIN = Path(str(files("tunegate"))) / "prompts" / "builtin"
_INCLUDE = re.compile(r"\{%-?\s*(?:include|import|extends|from)\s+([\"'])(.+?)\1")


def builtin_names() -> list[str]:
    """The names of the templates that come with tunegate."""
    return sorted(path.stem for path in BUILTIN.glob(f"*{SUFFIX}"))


def load_template(path_or_name: str | Path) -> Template:
    """Read a template by its file, or one that comes with tunegate by its name.

    Raises UsageError when there is none, PromptError naming file and line when it can't be used.
    """
    name = str(path_or_name)
    path = BUILTIN / f"{name}{SUFFIX}" if name in builtin_names() else Path(path_or_name)
    if not path.is_file():
        raise UsageError(f"There is no template {name}; give a file, or one of: {', '.join(builtin_names())}.")
    text = _read(path)
    parts: dict[str, str] = {}
    _collect(text, path, path.parent.resolve(), parts)
    return parse_template(text, name, parts)


def _collect(text: str, path: Path, folder: Path, parts: dict[str, str]) -> None:
    """Put what `text` includes into `parts`, and what that includes."""
    for found in _INCLUDE.finditer(text):
        name = found[2]
        if name in parts:
            continue
        where = f"{path}:{text.count(chr(10), 0, found.start()) + 1}"
        part = (folder / name).resolve()
        if folder not in part.parents:
            raise PromptError(f"{where}: {name!r} lies outside of the template's folder; copy it into {folder}.")
        if not part.is_file():
            raise PromptError(f"{where}: {name!r} does not exist in the template's folder; correct the name.")
        parts[name] = _read(part)
        if token := find_control_token(parts[name]):
            raise PromptError(f"{part} holds {token[0]}, a control token of chat templates; take it out.")
        _collect(parts[name], part, folder, parts)


def _read(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PromptError(f"{path} can't be read ({error.strerror}); check its permissions.") from None
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise PromptError(f"{path}:{line}: the file is not UTF-8; save it with that encoding.") from None
