"""`tunegate local`: a policy is kept only once it is known to be one, and the folder is ours."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.builders import make_policy
from tests.refusals import call, refused
from tunegate.api import environment
from tunegate.api.errors import NotFoundError, TunegateError, UsageError
from tunegate.api.policy import write_policy_file
from tunegate.cli.local import command
from tunegate.local.records import opened_store
from tunegate.local.state import Home, write
from tunegate.processes import free_port
from tunegate.store import Store


def up(home: Home, policy: Path) -> None:
    arguments = ["up", "--home", str(home.folder), "--policy", str(policy), "--port", str(free_port())]
    CliRunner().invoke(command, arguments, catch_exceptions=False)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    write(home.policy_file, write_policy_file(make_policy()))
    return home


def test_a_policy_that_is_none_is_refused_and_the_good_one_stays(home: Home, tmp_path: Path) -> None:
    before = home.policy_file.read_bytes()
    bad = tmp_path / "bad.yaml"
    bad.write_bytes(before.replace(b"suspend:", b"suspendd:"))
    with pytest.raises(UsageError, match="suspendd"):
        up(home, bad)
    assert home.policy_file.read_bytes() == before


def test_a_policy_for_a_platform_that_runs_is_refused_and_the_good_one_stays(home: Home, tmp_path: Path) -> None:
    before = home.policy_file.read_bytes()
    other = tmp_path / "other.yaml"
    other.write_bytes(write_policy_file(make_policy(suspend=True)))
    with home.hold(), pytest.raises(TunegateError, match="A platform already runs"):
        up(home, other)
    assert home.policy_file.read_bytes() == before


def test_a_policy_whose_initial_version_is_nowhere_is_refused_and_the_good_one_stays(
    home: Home, tmp_path: Path, store: Store
) -> None:
    before = home.policy_file.read_bytes()
    other = tmp_path / "other.yaml"
    other.write_bytes(write_policy_file(make_policy(initial_version=f"{store.uri}/shop/base/checkpoint-7/")))
    with pytest.raises(NotFoundError, match=r"checkpoint-7 in [^ ]+; there are none\.$"):
        up(home, other)
    assert home.policy_file.read_bytes() == before


def test_a_new_home_without_the_initial_version_says_how_it_gets_there(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(environment.STORE, raising=False)
    new, policy = Home(tmp_path / "new"), tmp_path / "policy.yaml"
    policy.write_bytes(write_policy_file(make_policy(initial_version="s3://tunegate/shop/base/checkpoint-0/")))
    with pytest.raises(NotFoundError) as caught:
        up(new, policy)
    said = str(caught.value).partition("To put one into the store of this folder: tunegate local ")[2]
    said = said.replace(" tunegate ", f" {sys.executable} -m tunegate ").replace("FOLDER", str(base))
    assert CliRunner().invoke(command, shlex.split(said)).exit_code == 0
    with opened_store(new) as store:
        assert store.resolve("shop/base/checkpoint-0")


def test_the_status_says_why_the_policy_file_is_not_in_use(home: Home) -> None:
    with home.hold():
        home.announce("http://127.0.0.1:1", "s3://b", "")
        home.report_problems({"InvalidPolicy": "policy.yaml is not a valid PromotionPolicy."})
        output = CliRunner().invoke(command, ["status", "--home", str(home.folder)]).output
    assert "InvalidPolicy: policy.yaml is not a valid PromotionPolicy." in output


def test_a_command_gets_the_store_of_the_platform_that_runs(home: Home, tmp_path: Path) -> None:
    told = tmp_path / "told"
    names = "os.environ['TUNEGATE_STORE'] + ' ' + os.environ['AWS_ENDPOINT_URL']"
    script = f"import os; open({str(told)!r}, 'w').write({names}); raise SystemExit(3)"
    with home.hold():
        home.announce("http://127.0.0.1:1", "s3://shop", "http://s")
        words = ["exec", "--home", str(home.folder), "--", sys.executable, "-c", script]
        assert CliRunner().invoke(command, words).exit_code == 3
        assert told.read_text() == "s3://shop http://s"
        with refused("; name a command, as in a shell"):
            call("local", "exec", "--home", home.folder, "tunegat", "experience")
