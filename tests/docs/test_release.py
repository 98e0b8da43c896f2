"""The page about releases: its files are written as it shows them, and its commands do what it says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from tests.apiserver import REPOSITORY
from tests.refusals import call
from tunegate.api.codec import from_yaml
from tunegate.api.policy import Gate
from tunegate.api.versions import ModelVersion, Producer, Release
from tunegate.cli import root
from tunegate.evaluation import load_suite
from tunegate.prompts.assistant import GIVEN
from tunegate.store import Store
from tunegate.store.release import read_release

PAGE = (REPOSITORY / "docs/release.md").read_text()
FILES = dict(re.findall(r"^`(\S+)`:\n\n```\w*\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
COMMANDS = re.findall(r"^\$ tunegate (.*)$", PAGE, re.MULTILINE)
YAML = [re.sub(r"^  ", "", text, flags=re.M) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]


@pytest.fixture
def tuned(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelVersion:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNEGATE_CACHE", str(tmp_path / "cache"))
    (weights := tmp_path / "weights").mkdir()
    (weights / "model.safetensors").write_bytes(b"weights")
    release = Release(format="huggingface")
    return store.publish(weights, "shop/run-1/checkpoint-120", release=release, producer=Producer(kind="test"))


def test_the_commands_do_what_the_page_says(store: Store, tuned: ModelVersion) -> None:
    assert len(COMMANDS) == 5
    for words in COMMANDS:
        done = CliRunner().invoke(root, shlex.split(words))
        assert done.exit_code == 0, (words, done.output, done.exception)

    helped, plain = (store.resolve(f"shop/{name}/checkpoint-120") for name in ("helped", "plain"))
    release = read_release(store, helped)
    assert release.prompts
    assert release.knowledge
    assert read_release(store, plain).generation == {"temperature": 0}
    assert "prompts/answer.prompt" in call("release", "show", helped.digest)


def test_the_release_and_the_gates_of_the_page_are_what_tunegate_reads() -> None:
    whole, gates = re.search(r"```yaml\n(schema.*?)```", PAGE, re.DOTALL), yaml.safe_load(YAML[1])
    assert whole
    assert from_yaml(whole[1], Release, "release.yaml").tools == ("calculator", "knowledge")
    for gate in gates["gates"]:
        named = {"max_regression" if key == "maxRegression" else key: value for key, value in gate.items()}
        assert load_suite(Gate(**named).suite)


def test_the_table_of_variables_is_complete() -> None:
    table = PAGE.partition("| variable |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == {name for names in GIVEN.values() for name in names}


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#:]+)\)", PAGE))
def test_a_link_leads_somewhere(link: str) -> None:
    assert (REPOSITORY / "docs" / link).exists()
