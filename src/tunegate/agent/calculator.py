"""Arithmetic as people and models write it: 632^2, 26×15%, （1,200＋800）÷4. Only numbers are evaluated."""

from __future__ import annotations

import ast
import math
import operator
import re
import unicodedata
from collections.abc import Callable
from typing import Any

import simpleeval

from tunegate.api.errors import ToolError

_LONGEST = 200  # characters
_LARGEST = 4096  # bits of a power
_SPELLED = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "²": "^2", "³": "^3"})
_FUNCTIONS: dict[str, Callable[..., Any]] = {"sqrt": math.sqrt, "abs": abs, "round": round, "min": min, "max": max}
_NAMES = {"pi": math.pi, "e": math.e}


def calculate(text: str) -> str:
    """The value of an expression, as text. Raises ToolError for what is none, or is too large.

    A percent sign after a number divides it by 100, unless a number follows: 7 % 3 is 1.
    """
    if len(text) > _LONGEST:
        raise _refused(text, f"it is longer than {_LONGEST} characters")
    expression = _plain(text)
    words = set(re.findall(r"[^\W\d]+", expression))
    if not words <= {*_FUNCTIONS, *_NAMES} or re.search(r"[^\w\s.+\-*/%(),]", expression):
        raise _refused(text, "it is no arithmetic")
    try:
        return _shown(_EVALUATOR.eval(expression))
    except (simpleeval.InvalidExpression, SyntaxError, ArithmeticError, ValueError, TypeError, RecursionError) as error:
        raise _refused(text, str(error).split("\n")[0]) from None


def _plain(text: str) -> str:
    """The expression in Python's spelling.

    `^` becomes `**`, because Python's own `^` is another operator, of another precedence.
    """
    plain = unicodedata.normalize("NFKC", text.translate(_SPELLED)).translate(_SPELLED).casefold()
    plain = re.sub(r"√\s*([\d.]+|(?=\())", lambda root: f"sqrt({root[1]})" if root[1] else "sqrt", plain)
    plain = plain.strip().rstrip("=? ").replace("^", "**")
    if not re.search(r"(?:min|max|round)\s*\(", plain):  # where commas are between arguments
        plain = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", plain)
    return re.sub(r"([\d.]+)\s*%(?!\s*[\d(])", r"(\1/100)", plain)


def _shown(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("it is no number")
    return str(value) if isinstance(value, int) else f"{value:.12g}"


def _power(base: float, exponent: float) -> Any:
    if isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * abs(exponent) > _LARGEST:
        raise ValueError("it is too large")
    return base**exponent


def _refused(text: str, reason: str) -> ToolError:
    return ToolError(f"{text[:80]!r} can't be calculated: {reason}; write numbers with + - * / ^ and parentheses.")


_EVALUATOR = simpleeval.SimpleEval(
    operators={
        ast.Add: operator.add,
        ast.Sub: operator.sub,
        ast.Mult: operator.mul,
        ast.Div: operator.truediv,
        ast.FloorDiv: operator.floordiv,
        ast.Mod: operator.mod,
        ast.Pow: _power,
        ast.USub: operator.neg,
        ast.UAdd: operator.pos,
    },
    functions=_FUNCTIONS,
    names=_NAMES,
)
