"""The ways out that messages of the library name: what is refused in their words, and which of them no test follows."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from docs.generate import VALUE, refusals
from tunegate.api.errors import NotFoundError, TunegateError
from tunegate.cli import root


def call(*words: object) -> str:
    """What a command prints; raises what it refuses."""
    done = CliRunner().invoke(root, [str(word) for word in words])
    if isinstance(done.exception, TunegateError):
        raise done.exception
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def past(words: str, *command: object) -> None:
    """The command is not refused in these words any more; there is no version, which is the next thing it says."""
    with pytest.raises(NotFoundError) as caught:
        call(*command)
    assert words not in str(caught.value)


@contextmanager
def refused(words: str) -> Iterator[pytest.ExceptionInfo[TunegateError]]:
    """Inside, something is refused, in these words, with VALUE for what varies; they stand in the table of messages."""
    assert [refusal for refusal in refusals() if words in refusal.text], f"no message says {words!r}"
    with pytest.raises(TunegateError) as caught:
        yield caught
    assert re.search(re.escape(words).replace(VALUE, ".*"), str(caught.value), re.DOTALL)


def without_story(room: str, test: Path) -> list[str]:
    """The messages of a room of which no words stand in this test."""
    tree = ast.parse(test.read_text())
    words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    told = {word for word in words if len(word) > 10}
    found = [refusal.text for refusal in refusals() if refusal.room == room]
    return [text for text in found if not any(word in text for word in told)]
