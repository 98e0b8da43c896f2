"""The page about training: its commands are commands, its rows are read, its tables of flags are those of the code."""

from __future__ import annotations

import json
import re
import shlex

import click
import pytest
import yaml
from click.testing import CliRunner

from tests.apiserver import REPOSITORY
from tunegate.cli import root
from tunegate.cli.submit import command as submit
from tunegate.training.compat import llamafactory
from tunegate.training.data.layouts import recognize
from tunegate.training.data.readers import Reason

PAGE = (REPOSITORY / "docs/training.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


COMMANDS = [line.removeprefix("$ ") for block in blocks("console") for line in block.splitlines()]


def parse(line: str) -> None:
    """Read a command as `tunegate` would, without doing what it says. Raises click.UsageError."""
    program, *rest = shlex.split(line)
    assert program == "tunegate"
    context = root.make_context("tunegate", rest)
    command: click.Command = root
    while isinstance(command, click.Group):
        _, found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert found
        command, context = found, found.make_context(found.name, rest, parent=context)


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_is_one(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEGATE_STORE", "s3://tunegate")

    parse(line)


def test_the_line_for_pai_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = (each for each in blocks("sh") if "submit" in each)
    for name, value in re.findall(r"(\w+)=('[^']*'|\S+)", "".join(block.splitlines(keepends=True)[:2])):
        monkeypatch.setenv(name, value.strip("'"))
    _, _, rest = block.partition("tunegate submit")
    options, _, text = rest.partition("<<'END'\n")

    result = CliRunner().invoke(submit, shlex.split(options), input=text.partition("END\n")[0])

    assert result.exit_code == 0, result.exception
    job = yaml.safe_load(result.stdout)
    assert job["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"] == 1


def test_each_row_has_a_layout_that_is_read() -> None:
    rows = [json.loads(block) for block in blocks("json") if block.count("\n") == 1]

    layouts = [recognize(row) for row in rows]
    assert [layout.formatting for layout in layouts if layout] == ["alpaca", "sharegpt", "openai", "pairs"]


def test_each_reason_for_a_rejected_record_is_in_the_table() -> None:
    table = PAGE.partition("| reason | what is wrong |")[2].partition("\n\n")[0]

    rows = re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE)
    assert {reason for row in rows for reason in re.findall(r"`(\w+)`", row)} == set(Reason)


def test_the_tables_of_flags_are_those_of_the_code() -> None:
    told = {
        flag: text
        for flags, text in re.findall(r"^\| (`--.*?`) \| (.*) \|$", PAGE.partition("## Flags of")[2], re.MULTILINE)
        for flag in re.findall(r"`--(\w+)`", flags)
    }

    assert told == {
        **{name: f"`--{ours}`" for name, ours in llamafactory.SAME.items()},
        **{name: f"the opposite of `--{ours}`" for name, ours in llamafactory.OPPOSITE.items()},
        **{name: why or "goes without saying" for name, why in llamafactory.WITHOUT_EFFECT.items()},
        **llamafactory.REFUSED,
    }
