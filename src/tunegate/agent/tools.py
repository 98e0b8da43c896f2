"""What a model may ask: a name, a description, and a function from text to text."""

from __future__ import annotations

import unicodedata
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from tunegate.agent.calculator import calculate


@dataclass(frozen=True)
class Tool:
    """names: what it is called by; the first is its name where the prompt is English, the last where it is Chinese.

    call: what the input gives; it raises ToolError for an input that it refuses. seconds: how long it may take.
    """

    names: tuple[str, ...]
    descriptions: tuple[str, ...]
    call: Callable[[str], Awaitable[str]]
    seconds: float = 10.0


def find(tools: Sequence[Tool], name: str) -> Tool | None:
    """The tool of that name, whatever its case, width and spaces."""
    return next((tool for tool in tools if _plain(name) in map(_plain, tool.names)), None)


def _plain(name: str) -> str:
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())


async def _calculate(text: str) -> str:
    return calculate(text)


CALCULATOR = Tool(
    ("Calculator", "计算器"),
    ("computes an expression such as (2 + 3) * 4 or 632^2", "计算算式，例如 (2 + 3) * 4 或 632^2"),
    _calculate,
)
