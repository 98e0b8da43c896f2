"""Asking for help is quick, and a wrong question is told apart from a failure."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from tunegate.api.errors import TunegateError, UsageError
from tunegate.cli import VERBS, main, root

HEAVY = {"accelerate", "boto3", "datasets", "deepspeed", "kserve", "peft", "torch", "transformers"}
PARTS = (
    "api",
    "evaluation",
    "feedback",
    "local",
    "models",
    "promotion",
    "prompts",
    "serving",
    "shop",
    "store",
    "training",
)


def modules_after(program: str) -> set[str]:
    """The top-level modules that `program` leaves loaded in a new interpreter."""
    program += "\nimport json, sys; print(json.dumps([name.split('.')[0] for name in sys.modules]), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "100"},
    )
    return set(json.loads(done.stderr.splitlines()[-1]))


def paths(command: click.Command, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The words that lead to each command: `()`, `("models",)`, `("models", "list")` and so on."""
    if not isinstance(command, click.Group):
        return [path]
    context = click.Context(command)
    found = [path]
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        assert below
        found += paths(below, (*path, name))
    return found


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_exists(verb: str) -> None:
    assert isinstance(importlib.import_module(VERBS[verb][0]).command, click.Command)


def test_every_command_explains_itself_and_its_options() -> None:
    for path in paths(root):
        result = CliRunner().invoke(root, [*path, "--help"])

        assert result.exit_code == 0, path
        assert result.output.startswith(f"Usage: root {' '.join(path)}".rstrip()), path
        lines = result.output.splitlines()
        assert lines[2].strip(), f"{path} does not say what it does"


def test_help_and_version_load_nothing_heavy() -> None:
    program = """
from tunegate.cli import main
for argv in (["--help"], ["--version"]):
    try: main(argv)
    except SystemExit as error: assert error.code == 0, error.code
"""
    assert modules_after(program) & (HEAVY | {"aiohttp", "rich"}) == set()


def test_the_help_of_every_verb_loads_nothing_heavy() -> None:
    program = """
from tunegate.cli import VERBS, main
for verb in VERBS:
    try: main([verb, "--help"])
    except SystemExit as error: assert error.code == 0, (verb, error.code)
"""
    assert modules_after(program) & HEAVY == set()


def test_the_parts_are_light_until_they_are_used() -> None:
    program = "\n".join(f"import tunegate.{part}" for part in PARTS)

    assert modules_after(program) & (HEAVY - {"boto3"}) == set()


@pytest.mark.parametrize("argv", [["--no-such-flag"], ["no-such-verb"], *([verb, "--no-such-flag"] for verb in VERBS)])
def test_an_unknown_word_is_a_usage_error(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(argv)

    assert error.value.code == 2
    said = "There is no --no_such_flag" if argv[0] == "train" else "No such "
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(("kind", "code"), [(UsageError, 2), (TunegateError, 1)])
def test_our_errors_are_one_sentence_and_a_status(
    kind: type[TunegateError], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command()
    def command() -> None:
        raise kind("It failed; do it otherwise.")

    monkeypatch.setattr(root, "get_command", lambda *_: command)
    with pytest.raises(SystemExit) as error:
        main(["serve"])

    assert error.value.code == code
    assert capsys.readouterr().err == "tunegate: It failed; do it otherwise.\n"
