"""The page about evaluation: its suite is one, its commands measure a version, and its table has every field."""

from __future__ import annotations

import json
import re
import shlex
import zipfile
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from tests.apiserver import REPOSITORY
from tests.builders import make_cluster_policy
from tests.unit.evaluation.builders import write_csv
from tests.unit.evaluation.servers import Server, said
from tunegate.api.versions import ModelVersion, Producer, Release
from tunegate.cli import root
from tunegate.evaluation.choice.exams import names
from tunegate.evaluation.suites import SuiteFile
from tunegate.models import make_tiny
from tunegate.store import Store

PAGE = (REPOSITORY / "docs/evaluation.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


COMMANDS = [line.removeprefix("$ ") for block in blocks("console") for line in block.splitlines()]


def write_exam(folder: Path) -> None:
    """C-Eval's layout as a zip, with one made-up question a subject, and none of the test split labelled."""
    (folder / "exam").mkdir(parents=True)
    for handle in names("ceval"):
        for split, letter in (("dev", "B"), ("val", "A"), ("test", "")):
            row = ["9除以3等于几？", "3", "4", "5", "6", letter]
            rows = [[number, *row] for number in range(5 if split == "dev" else 1)]
            write_csv(folder / "exam" / split / f"{handle}_{split}.csv", rows)
    with zipfile.ZipFile(folder / "ceval-exam.zip", "w") as archive:
        for path in sorted((folder / "exam").rglob("*.csv")):
            archive.write(path, path.relative_to(folder / "exam"))


def prepare(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelVersion:
    """A version, and the suites of the page with their data in the folder that the commands are run in."""
    model = make_tiny(tmp_path / "model", ["以下是中国关于考试的单项选择题，请选出其中的正确答案。答案：ABCD", "Hello"])
    release, producer = Release(format="huggingface"), Producer(kind="test")
    version = store.publish(model, "shop/base/checkpoint-0", release=release, producer=producer)
    suite, _, harness, _ = blocks("yaml")
    write_exam(tmp_path / "data")
    (tmp_path / "ceval-harness").mkdir()
    (tmp_path / "ceval-harness/suite.yaml").write_text(harness)
    (tmp_path / "ceval-harness/data/ceval").mkdir(parents=True)
    (tmp_path / "data/exam").rename(tmp_path / "ceval-harness/data/ceval/ceval-exam")
    for name, more in (("ceval", ""), ("ceval-test", "split: test\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "ceval-exam.zip").hardlink_to(tmp_path / "data" / "ceval-exam.zip")
        (tmp_path / name / "suite.yaml").write_text(suite.replace("name: ceval", f"name: {name}") + more)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNEGATE_STORE", store.uri)
    monkeypatch.setenv("TUNEGATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", store.endpoint_url or "")
    return version


def test_the_commands_measure_a_version_on_the_suite_of_the_page(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = prepare(store, tmp_path, monkeypatch)
    for line in (line for line in COMMANDS if "evaluate" in line and "--url" not in line and "harness" not in line):
        program, *rest = shlex.split(line.replace("VERSION", version.name).replace("--suite shop-en", ""))
        assert program == "tunegate"
        result = CliRunner().invoke(root, [*rest, "--json"], catch_exceptions=False)
        assert result.exit_code == 0
        (measured,) = json.loads(result.stdout)
        found = {metric["name"]: metric for metric in measured["metrics"]}
        is_labelled = measured["suite"] == "ceval"
        assert ("accuracy_hard" in found, len(measured["records"])) == (is_labelled, 52)
        assert is_labelled or "ceval-test has no labels, so nothing is scored" in result.stderr

    (compare,) = (line for line in COMMANDS if "compare" in line)
    argv = shlex.split(compare.replace("STABLE", version.name).replace("CANDIDATE", version.digest))[1:]
    assert "ceval: no answer of 52 changed sides" in CliRunner().invoke(root, argv, catch_exceptions=False).stdout

    letters = json.loads(Path("submission.json").read_text())
    assert list(letters) == list(names("ceval"))
    assert {tuple(answers) for answers in letters.values()} == {("0",)}


def test_a_version_is_measured_where_it_is_served(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = prepare(store, tmp_path, monkeypatch)
    (line,) = (line for line in COMMANDS if "--url" in line)
    with Server(lambda body: said("Yes, it is in stock.", **{"x-tunegate-version": version.digest})) as server:
        argv = shlex.split(line.replace("VERSION", version.name).replace("http://127.0.0.1:8080", server.url))
        result = CliRunner().invoke(root, [*argv[1:], "--json"], catch_exceptions=False)
    (measured,) = json.loads(result.stdout)
    assert (measured["suite"], measured["settings"]) == ("shop-en", "url")
    assert measured["completed"] == measured["total"] == len(server.bodies)
    assert {record["answer"] for record in measured["records"]} == {"Yes, it is in stock."}


@pytest.mark.filterwarnings("ignore")  # of its many packages
def test_lm_evaluation_harness_asks_the_same_files(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lm_eval", reason="needs lm-evaluation-harness: pip install 'tunegate[lm-eval]'")
    version = prepare(store, tmp_path, monkeypatch)
    (line,) = (line for line in COMMANDS if "ceval-harness" in line)
    argv = [*shlex.split(line.replace("VERSION", version.name))[1:], "--json", "--limit", "3"]
    (measured,) = json.loads(CliRunner().invoke(root, argv, catch_exceptions=False).stdout)

    assert [record["id"] for record in measured["records"]] == [
        f"ceval-valid_{name}/0" for name in list(names("ceval"))[:3]
    ]
    assert measured["metrics"][0]["name"] == "accuracy"


def test_gates_on_intervals_and_pairs_are_of_a_policy() -> None:
    suites = ["shop-en", "shop-safety-en.people"]
    policy = make_cluster_policy(**yaml.safe_load(blocks("yaml")[1]), suites=suites)
    assert [gate.basis for gate in policy.gates] == ["Interval", "Paired", "Paired"]


def test_what_a_policy_says_of_runs_is_one() -> None:
    policy = make_cluster_policy(**yaml.safe_load(blocks("yaml")[3]), suites=["quality", "shop-en"])
    assert policy.stop_training
    assert (policy.selection.type, policy.stop_training.checkpoints) == ("BestOf", 3)


def test_the_table_has_every_field_of_a_choice_suite() -> None:
    suite = blocks("yaml")[0]
    named = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) | set(yaml.safe_load(suite))
    assert named == set(SuiteFile.__struct_fields__)
