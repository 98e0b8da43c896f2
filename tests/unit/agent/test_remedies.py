"""What the calculator refuses, it takes once it is written as the message says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.refusals import refused, without_story
from tunegate.agent.calculator import calculate


@pytest.mark.parametrize(
    ("wrong", "right", "value"),
    [
        ("3 apples times 2", "3 * 2", "6"),
        ("(1 + 2", "(1 + 2) ^ 2 / 3 - 1", "2"),
        ("1 << 3", "2 ^ 3", "8"),
    ],
)
def test_arithmetic_is_written_as_the_message_says(wrong: str, right: str, value: str) -> None:
    with refused("; write numbers with + - * / ^ and parentheses."):
        calculate(wrong)
    assert calculate(right) == value


def test_every_message_has_its_story() -> None:
    assert without_story("agent", Path(__file__)) == []
