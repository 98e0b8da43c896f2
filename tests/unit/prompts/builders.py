"""Templates for tests: say what matters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from tunegate.prompts import Template, parse_template, render

NONCE = "8f3a"


def template(text: str, **front: Any) -> Template:
    """A template of `text` with the front matter that is given."""
    head = f"---\n{yaml.safe_dump(front, allow_unicode=True, sort_keys=False)}---\n" if front else ""
    return parse_template(head + text, "shop.prompt")


def variables(**kinds: str | dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Front matter for variables: name=type, or name={type: ..., ...}."""
    return {
        name: {"description": f"The {name}.", **({"type": kind} if isinstance(kind, str) else kind)}
        for name, kind in kinds.items()
    }


def rendered(text: str, values: Mapping[str, Any], **front: Any) -> list[tuple[str, str]]:
    """The roles and texts of what the template becomes."""
    return [(message.role, message.content) for message in render(template(text, **front), values, nonce=NONCE)]
