"""What a model's text says in the ReAct format: the first action, or the answer. Text in, a value out.

Models write labels in either language, in bold, numbered, with full-width colons; they leave inputs out, and make up
observations and further actions, of which none counts.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

_LABELS = {
    "thought": r"thought|思考|想法",
    "action": r"action|行动|动作",
    "input": r"(?:action\s+)?input|(?:行动|动作)?输入",
    "observation": r"observation|观察(?:结果)?",
    "result": r"final\s+(?:result|answer)|最终(?:结果|答案|回答)",
}
_KINDS = "|".join(rf"(?P<{kind}>{words})" for kind, words in _LABELS.items())
# At the beginning of a line; the result also within one, as in "Thought: Final Result: ...".
_LABEL = re.compile(
    rf"^[ \t>*#_-]*(?:{_KINDS})[ \t]*\d*[*_]*[ \t]*[:：][*_]*"
    rf"|(?<=[:：])[ \t*]*(?P<inner>{_LABELS['result']})[ \t*]*[:：]",
    re.IGNORECASE | re.MULTILINE,
)
_LONGEST_LABEL = 32  # characters, with what may stand around it
_CALL = re.compile(r"([^\[(（\n]+?)\s*[\[(（](.*)[\])）]", re.DOTALL)


@dataclass(frozen=True)
class Step:
    """A tool that the model wants asked. text: what it wrote up to there; discarded: the actions that came after."""

    thought: str
    tool: str
    input: str
    text: str
    discarded: int = 0


@dataclass(frozen=True)
class Answer:
    """The end: what the model answers."""

    thought: str
    text: str


@dataclass(frozen=True)
class Malformed:
    """Neither an action nor an answer."""

    text: str


@dataclass(frozen=True)
class _Part:
    kind: str
    text: str
    end: int


def parse(text: str) -> Step | Answer | Malformed:
    """What the model does next. An action before the answer counts, since the answer was made up without its result."""
    text = answer_of(text)
    parts = _parts(text)
    first = next((i for i, part in enumerate(parts) if part.kind in ("action", "result")), None)
    if first is None or not parts[first].text:
        return Malformed(text.strip())
    thought = "\n".join(part.text for part in parts[:first] if part.kind == "thought" and part.text)
    if parts[first].kind == "result":
        return Answer(thought, parts[first].text)
    following = parts[first + 1 : first + 2]
    discarded = sum(part.kind == "action" for part in parts[first + 1 :])
    if following and following[0].kind == "input":
        tool, given, end = parts[first].text, following[0].text, following[0].end
    else:
        call = _CALL.fullmatch(parts[first].text)
        tool, given, end = (call[1], call[2], parts[first].end) if call else (parts[first].text, "", parts[first].end)
    return Step(thought, tool.split("\n")[0].strip("`*_ .。"), _bare(given), text[:end].strip(), discarded)


def answer_of(text: str) -> str:
    """A model's text without the thoughts before it, also where those have not come to their end."""
    said = text.rpartition("</think>")[2].strip()
    return "" if said.startswith("<think>") else said


def answer_so_far(text: str) -> str:
    """What of a text that is still being written is surely the answer: empty until it begins.

    A line that has only begun may become a label, which would end the answer.
    """
    move = parse(text)
    if not isinstance(move, Answer):
        return ""
    before, newline, line = move.text.rpartition("\n")
    return before if newline and len(line) < _LONGEST_LABEL else move.text


def _parts(text: str) -> list[_Part]:
    """The labelled parts of the text; what stands before the first label is a thought."""
    labels = list(_LABEL.finditer(text))
    starts = [*(label.start() for label in labels), len(text)]
    parts = [_Part("thought", text[: starts[0]].strip(), starts[0])]
    for label, end in zip(labels, starts[1:], strict=True):
        kind = "result" if label["inner"] else str(label.lastgroup)
        parts.append(_Part(kind, text[label.end() : end].strip(), end))
    return parts


def _bare(given: str) -> str:
    """The input without a code block, quotes, or an object of one text around it."""
    bare = re.sub(r"^```\w*\n(.*?)\n?```$", r"\1", given.strip(), flags=re.DOTALL).strip()
    try:
        value = json.loads(bare)
    except (ValueError, RecursionError):
        return re.sub(r"^([`\"'])(.*)\1$", r"\2", bare, flags=re.DOTALL)
    if isinstance(value, dict) and len(value) == 1:
        value = next(iter(value.values()))
    return value if isinstance(value, str) else bare
