"""The letter that a model chose, read out of what it wrote. Nothing is guessed: what names no letter is no answer."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tunegate.evaluation.choice.prompts import LETTERS

# A letter is one that no other Latin letter stands beside: "A" of "Answer" is none, and 汉字 are no word boundary.
_LETTER = r"[（(\s*]*(?<![A-Za-z])([ABCD])(?![A-Za-z])"
_NOT = r"(?<!不)(?<!非)"
# In this order; of each kind what comes last counts, since a chain of thought ends with what it has come to.
_SAID = tuple(
    re.compile(pattern)
    for pattern in (
        rf"所以(?:正确)?答案(?:应该)?[是为选][：:]?{_LETTER}",
        rf"答案(?:应该|应当|选项)?{_NOT}[是为选][：:]?(?:选项)?{_LETTER}",
        rf"(?:正确)?(?:答案|选项)\s*[：:]{_LETTER}",
        rf"(?:应该|应|故)?(?<!不)选择?(?:答案|选项)?[：:]?{_LETTER}",
        rf"(?i:answer)(?i:\s+is)?\s*:?\s*\**(?i:option\s+)?{_LETTER}",
        r"(?<![A-Za-z])([ABCD])(?:选?项)?(?:是|为)?(?:正确|对的|符合题意)",
        r"选项\s*([ABCD])\s*(?:是|为)?正确",
    )
)
_ALONE = re.compile(r"(?<![A-Za-z])[ABCD](?![A-Za-z])")
_FIRST = re.compile(rf"^{_LETTER}(?:$|[\s.。,，、:：）)])")


def read_letter(written: str, options: Sequence[str]) -> str | None:
    """What the text says the answer is; else the letter it begins with; else the only letter, or only option, in it.

    None where it says nothing of the kind, or names several.
    """
    for said in _SAID:
        if found := said.findall(written):
            return str(found[-1])
    if begins := _FIRST.match(written.strip()):
        return str(begins[1])
    alone = set(_ALONE.findall(written))
    if len(alone) == 1:
        return str(alone.pop())
    named = [letter for letter, option in zip(LETTERS, options, strict=True) if option and option in written]
    return named[0] if len(named) == 1 and not alone else None
