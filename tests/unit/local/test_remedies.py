"""What the local platform refuses, it takes once the message's words were followed."""

from __future__ import annotations

import asyncio
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.builders import at, make_policy, make_version
from tests.refusals import refused, without_story
from tests.waiting import wait_for
from tunegate.api.policy import write_policy_file
from tunegate.api.promotion import Approval, Promotion
from tunegate.cli import root
from tunegate.local.platform import Proxy
from tunegate.local.proxy import serve
from tunegate.local.records import opened_store
from tunegate.local.state import Home
from tunegate.processes import free_port

NAME = "shop-1"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "a home")


def command_in(message: str) -> list[str]:
    (command,) = re.findall(r"tunegate [a-z].*", message)
    return shlex.split(command)[1:]


def test_what_was_said_before_is_shown_by_the_command_that_the_message_names(home: Home) -> None:
    home.save(Promotion(name=NAME, created=at(0), candidate=make_version("run-1")))
    home.save_decision(NAME, Approval(verdict="Approved", actor="ada"))
    with refused("see: tunegate promotions explain ") as caught:
        home.save_decision(NAME, Approval(verdict="Rejected", actor="jan"))
    done = CliRunner().invoke(root, command_in(str(caught.value)))
    assert done.exit_code == 0, done.output
    assert "shop/run-1" in done.output


def test_a_policy_is_written_where_the_message_says(home: Home) -> None:
    with refused("write a PromotionPolicy there or pass --policy") as caught:
        home.policy()
    (path,) = re.findall(r"(.+) does not exist", str(caught.value))
    home.folder.mkdir()
    Path(path).write_bytes(write_policy_file(make_policy()))
    assert home.policy().model == "shop"


def test_a_port_that_is_taken_is_another_one_elsewhere(home: Home, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with refused("choose another one with --port"):
            Proxy.start(home, taken.getsockname()[1])
        with refused("choose another one with --port"):
            asyncio.run(serve(taken.getsockname()[1], tmp_path / "route.json"))
        proxy = Proxy.start(home, free_port())
        assert proxy.exit_code is None
        proxy.stop()


def test_a_platform_that_runs_is_stopped_by_the_command_that_the_message_names(home: Home) -> None:
    """The holder is a process of its own, which ends at SIGTERM as a platform does."""
    code = (
        "import sys, time; from pathlib import Path; from tunegate.local.state import Home; h = Home(Path(sys.argv[1]))"
    )
    code += "\nwith h.hold():\n    h.announce('http://127.0.0.1:1', 's3://b', '')\n    time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, str(home.folder)]) as running:
        wait_for(home.running, what="the platform to be there")
        with refused("stop it with: tunegate local down ") as caught, home.hold():
            pass
        done = CliRunner().invoke(root, command_in(str(caught.value)))
        assert done.exit_code == 0, done.output
        running.wait(100)
    with home.hold():
        pass


def test_the_store_of_a_folder_that_has_none_is_named(home: Home) -> None:
    with (
        refused(" has no store of its own; name the one it used with --store, or make one: tunegate local up"),
        opened_store(home),
    ):
        pass


# Messages that say where to look: what is found there is the way out.
ELSEWHERE = {
    "does not stop; end it with: kill -9 ": "unit/local/test_client.py",
    "The model did not answer: ": "unit/local/test_client.py",
    "; see: tunegate local status ": "unit/local/test_client.py",
    "s; the logs are in ": "unit/local/test_client.py",
}


def test_every_message_has_its_story() -> None:
    assert without_story("local", Path(__file__)) == []
    assert all((Path(__file__).parents[2] / path).is_file() for path in ELSEWHERE.values())
