"""What a model may ask: a name, a description, and a function from a text to what it finds.

What is found is a text, or sources, which an answer can cite. Pure; what asks other servers has modules of its own.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tunegate.agent.calculator import calculate

Language = Literal["en", "zh"]


@dataclass(frozen=True)
class Source:
    """A piece of text that is found and cited. number: what it is cited by; 0 until it is shown to a model.

    uri: a page's URL, or a document's path in its index. line, page: where in it, counted from 1. date: as its source
    gives it. score: how well it fits, by whoever found it.
    """

    title: str
    text: str
    uri: str = ""
    line: int | None = None
    page: int | None = None
    date: str = ""
    score: float | None = None
    number: int = 0

    @property
    def shown(self) -> str:
        """As a model reads it."""
        about = ", ".join(part for part in (self.date, self.uri if "://" in self.uri else "") if part)
        return f"[{self.number}] {self.title}{about and f' ({about})'}\n{self.text}"


def shown(sources: Sequence[Source]) -> str:
    """Sources as a model reads them, one after the other."""
    return "\n\n".join(source.shown for source in sources)


Found = str | tuple[Source, ...]


@dataclass(frozen=True)
class Tool:
    """names: what it is called by; the first is its name where the prompt is English, the last where it is Chinese.

    call: what the input gives; it raises ToolError for an input that it refuses. seconds: how long it may take.
    key: its name in a release and in OpenAI's tool calls. takes: the name of its input there, and what that is, in both
    languages.
    """

    names: tuple[str, ...]
    descriptions: tuple[str, ...]
    call: Callable[[str], Awaitable[Found]]
    seconds: float = 10.0
    key: str = ""
    takes: tuple[str, ...] = ("input", "what it is asked", "要问的内容")

    @property
    def function(self) -> str:
        """Its name in OpenAI's tool calls, which takes letters, digits and `_`."""
        return self.key or re.sub(r"\W+", "_", self.names[0].casefold())

    def name(self, language: Language) -> str:
        return self.names[0 if language == "en" else -1]

    def description(self, language: Language) -> str:
        return self.descriptions[0 if language == "en" else -1]

    def schema(self, language: Language) -> dict[str, Any]:
        """As OpenAI's `tools` has it: a function of one text."""
        taken = {"type": "string", "description": self.takes[1 if language == "en" else -1]}
        parameters = {
            "type": "object",
            "properties": {self.takes[0]: taken},
            "required": [self.takes[0]],
            "additionalProperties": False,
        }
        about = {"name": self.function, "description": self.description(language), "parameters": parameters}
        return {"type": "function", "function": about}


def find(tools: Sequence[Tool], name: str) -> Tool | None:
    """The tool of that name, whatever its case, width and spaces."""
    return next((tool for tool in tools if _plain(name) in map(_plain, (tool.function, *tool.names))), None)


def _plain(name: str) -> str:
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())


async def _calculate(text: str) -> str:
    return calculate(text)


CALCULATOR = Tool(
    ("Calculator", "计算器"),
    ("computes an expression such as (2 + 3) * 4 or 632^2", "计算算式，例如 (2 + 3) * 4 或 632^2"),
    _calculate,
    key="calculator",
    takes=("expression", "the expression, such as 632^2", "算式，例如 632^2"),
)
