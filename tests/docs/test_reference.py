"""The reference: its tables are those of the schemas and of the settings, its examples work, nothing is left out."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs import generate
from tests.apiserver import OWN_CRDS, REPOSITORY, ApiServer
from tests.builders import START, make_version
from tunegate.api.promotion import Promotion
from tunegate.training import TrainConfig
from tunegate_operator import conditions
from tunegate_operator.statuses import CHECKS

SCRIPT = REPOSITORY / "docs/generate.py"
PAGES = sorted((REPOSITORY / "docs/reference").glob("*.md"))
KINDS = ("modelversion", "promotionpolicy", "promotion")


def page(kind: str) -> str:
    return (REPOSITORY / f"docs/reference/{kind}.md").read_text()


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def schema(kind: str) -> dict[str, Any]:
    crds = [yaml.safe_load(path.read_text()) for path in OWN_CRDS.glob("*.yaml")]
    (crd,) = (each for each in crds if each["spec"]["names"]["singular"] == kind)
    return dict(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"])


def test_there_is_a_page_for_each_kind_for_training_and_for_messages() -> None:
    assert {path.stem for path in PAGES} == {*KINDS, "train", "messages"}


def test_each_setting_of_training_is_in_a_table() -> None:
    assert re.findall(r"^\| `--(\w+)` \|", page("train"), re.MULTILINE) == list(TrainConfig.__struct_fields__)


def test_the_tables_are_those_of_the_schemas() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "--check"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_stale_table_is_found_and_written_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate, "PAGES", tmp_path)
    for each in PAGES:
        shutil.copy(each, tmp_path)
    stale = tmp_path / "promotion.md"
    stale.write_text(stale.read_text().replace("| `status.weight` |", "| `status.share` |"))
    assert generate.main(["--check"]) == 1
    assert capsys.readouterr().err == "promotion.md: stale; run `python docs/generate.py`\n"
    assert generate.main([]) == 0
    assert stale.read_text() == page("promotion")


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_has_one_row(kind: str) -> None:
    tables = page(kind).partition("\n## spec\n")[2]
    rows = re.findall(r"^\| `((?:spec|status)\.[\w.\[\]]+)` \|", tables, re.MULTILINE)
    assert len(rows) == len(set(rows))
    assert len(rows) == sum(count(schema(kind)[part]) for part in ("spec", "status"))


def count(field: dict[str, Any]) -> int:
    below = (field.get("items", field)).get("properties", {})
    return len(below) + sum(count(each) for each in below.values())


@pytest.mark.parametrize("kind", KINDS)
def test_every_phase_is_explained(kind: str) -> None:
    rows = re.findall(r"^\| `(\w+)` \|", section(kind, "Phases"), re.MULTILINE)
    assert sorted(rows) == sorted(schema(kind)["status"]["properties"]["phase"]["enum"])


def section(kind: str, title: str) -> str:
    found = re.search(rf"^## {title}$(.*?)^## ", page(kind), re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("kind", KINDS)
def test_every_condition_that_the_operator_writes_is_explained(kind: str) -> None:
    promotion = Promotion(name="p", created=START, candidate=make_version("a"))
    written = {
        "modelversion": ["Verified", "Evaluated"],
        "promotionpolicy": [each.type for each in conditions.of_policy([], CHECKS, busy=False, phase="Serving")],
        "promotion": [each.type for each in conditions.of_promotion(promotion, [], "shop", "")],
    }
    rows = re.findall(r"^\| `(\w+)` \|", section(kind, "Conditions"), re.MULTILINE)
    assert sorted(rows) == sorted(written[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_every_link_leads_somewhere(kind: str) -> None:
    for target, _, anchor in (each.partition("#") for each in re.findall(r"\]\(([^)]+)\)", page(kind))):
        path = REPOSITORY / "docs/reference" / target
        assert path.exists(), target
        assert not anchor or anchor in [title.lower() for title in re.findall(r"^#+ (.+)$", path.read_text(), re.M)]


@pytest.mark.usefixtures("tunegate_crds")
@pytest.mark.parametrize("kind", KINDS)
def test_the_examples_can_be_applied(kind: str, api_server: ApiServer, namespace: str) -> None:
    """Also one after the other, as when a person adds an approval; then the commands of the page."""
    examples = blocks(page(kind), "yaml")
    assert examples
    for example in examples:
        here = example.replace("namespace: shop\n", f"namespace: {namespace}\n")
        said = api_server.kubectl("apply", "--filename", "-", stdin=here).stdout
        assert said.startswith(f"{kind}.tunegate.io/")
    for line in "".join(blocks(page(kind), "console")).splitlines():
        words = line.removeprefix("$ kubectl ").replace("--namespace shop", f"--namespace {namespace}").split()
        assert "shop" in api_server.kubectl(*words).stdout
