"""The page about agents: its commands do what it says, and its tables have every tool, dialect and variable."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import yaml
from click.testing import CliRunner

from tests.answering import answering
from tests.apiserver import REPOSITORY
from tests.unit.agent.sites import TALLEST, results, site
from tests.unit.agent.vllm import called, said, vllm
from tunegate.agent.search import Fields
from tunegate.agent.toolbox import NAMES
from tunegate.api import environment
from tunegate.api.policy import Gate
from tunegate.api.versions import Producer, Release
from tunegate.cli import root
from tunegate.cli.agent import ask
from tunegate.evaluation import injection
from tunegate.evaluation.suites import SHIPPED
from tunegate.models import make_tiny
from tunegate.store import Store

PAGE = (REPOSITORY / "docs/agent.md").read_text()
FILES = dict(re.findall(r"`(\S+)`:\n\n```\w*\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
CONSOLE = "".join(re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
BLOCKS = re.split(r"^\$ ", CONSOLE, flags=re.MULTILINE)
# A command with what the page shows of its output, which may be nothing. Those of a cluster are the chart's tests'.
COMMANDS = [tuple(block.removeprefix("tunegate ").split("\n", 1)) for block in BLOCKS if block.startswith("tunegate ")]


def model(prompt: str) -> str:
    """What the model of the page writes."""
    if prompt.startswith("Web search results"):
        return "It is 632 meters tall [1]."
    observed = re.match(r"Observation: |观察：", prompt)
    if "KT-100" in prompt:
        return (
            "Final Result: The Kettle costs $26 [1]."
            if observed
            else "Thought: I look it up.\nAction: Catalogue\nInput: KT-100"
        )
    if "上海" in prompt:
        return "行动：搜索API"
    if "632 meters" in prompt:
        return "行动：计算器\n输入：632^2"
    if "399424" in prompt:
        return "Final Result: It is 399424."
    return "Thought: I calculate.\nAction: Calculator\nInput: 632^2"


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The page's URLs, and what answers there."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    calls = [called(("catalogue", '{"query": "KT-100"}')), said("It costs $26 [1].")]
    with answering(model) as (url, _), vllm(calls) as (other, _), site({"/search": results([TALLEST])}) as searxng:
        yield {"http://127.0.0.1:8080": url, "http://127.0.0.1:8000": other, "http://127.0.0.1:8888": searxng.url}


@pytest.mark.parametrize(("words", "shown"), [each for each in COMMANDS if each[0].startswith("agent")])
def test_a_command_does_what_the_page_says(places: dict[str, str], words: str, shown: str) -> None:
    for written, url in places.items():
        words = words.replace(written, url)
    result = CliRunner().invoke(root, shlex.split(words))

    assert result.exit_code == 0, result.exception
    assert shown in ("", result.stdout)
    assert re.search(r"\$26|632|399424", result.stdout)


def test_a_version_is_put_before_pages_that_give_orders(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = make_tiny(tmp_path / "model", ["Kettle"])
    version = store.publish(
        tiny, "shop/base/checkpoint-0", release=Release(format="huggingface"), producer=Producer(kind="test")
    )
    monkeypatch.setenv("TUNEGATE_CACHE", str(tmp_path / "cache"))
    ((words, _),) = [each for each in COMMANDS if not each[0].startswith("agent")]

    result = CliRunner().invoke(root, [*shlex.split(words.replace("VERSION", version.name)), "--limit", "2"])

    assert result.exit_code == 0, result.exception
    assert "injection-zh" in result.stdout


def rows(title: str) -> list[str]:
    """What stands in the first column of the table with that title."""
    return re.findall(r"^\| `([\w-]+)` \|", PAGE.partition(f"\n| {title} |")[2].partition("\n\n")[0], re.MULTILINE)


def test_the_tables_are_complete() -> None:
    dialects = next(option for option in ask.params if option.name == "dialect").type.choices  # type: ignore[attr-defined]

    assert sorted(rows("tool")) == sorted(NAMES)
    assert rows("`--dialect`") == list(dialects)
    assert rows("variable") == [
        environment.SEARCH_URL,
        environment.SEARCH_KIND,
        environment.SEARCH_KEY,
        environment.SEARCH_HEADER,
        environment.SEARCH_FIELDS,
        environment.HTTP_ALLOW,
    ]
    assert all(f"`{name}" in PAGE or f"{name}=" in PAGE for name in Fields.__dataclass_fields__)


def test_the_gate_is_one_and_the_suites_are_as_large_as_it_says() -> None:
    (policy,) = [block for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if "gates" in block]

    assert msgspec.convert(yaml.safe_load(policy)["gates"], list[Gate])
    for language in ("en", "zh"):
        attacks = (SHIPPED / f"injection-{language}" / injection.ATTACKS).read_text().splitlines()
        assert f"{len(attacks)} attacks" in PAGE


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", PAGE))
def test_a_link_leads_somewhere(link: str) -> None:
    assert (REPOSITORY / "docs" / link).exists()
