"""`tunegate report`: from a store, or from files, to a page and JSON."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from tests.unit.report.builders import business
from tunegate.api.codec import to_json
from tunegate.api.errors import UsageError
from tunegate.api.evaluation import Evaluation
from tunegate.api.versions import BaseModel, Cost, Dataset, ModelVersion, Producer, Release, Training
from tunegate.cli import root
from tunegate.files import digest_of_file
from tunegate.store import Store
from tunegate.store.evaluations import save

QUESTION = "Which kettle is number 3 of the catalogue?"


def run(*argv: object) -> Result:
    return CliRunner().invoke(root, ["report", *map(str, argv)], catch_exceptions=False)


def publish(store: Store, tmp_path: Path, name: str, base: ModelVersion | None = None, *data: Dataset) -> ModelVersion:
    (folder := tmp_path / name).mkdir()
    (folder / "model.safetensors").write_bytes(name.encode())
    training = Training(method="lora", cost=Cost(seconds=61.5, trainable_parameters=5, parameters=100))
    producer = Producer(kind="test", datasets=data, training=training)
    release = Release(
        format="lora-adapter" if base else "huggingface",
        base=BaseModel(uri=base.uri, digest=base.digest) if base else None,
    )
    return store.publish(folder, f"shop/{name}/checkpoint-1", release=release, producer=producer)


def result_of(version: ModelVersion, right: str, **about: object) -> Evaluation:
    changes = {"version": version.name, "digest": version.digest, **about}
    return msgspec.structs.replace(business(0, right), **changes)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [{"instruction": QUESTION, "output": "The Serin."}, {"instruction": "Hello", "output": "Hello."}, {"x": 1}]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "train.jsonl"


@pytest.fixture
def versions(store: Store, tmp_path: Path, data: Path) -> tuple[ModelVersion, ModelVersion]:
    """A base model and an adapter that was trained with what `data` is, and measured worse."""
    base = publish(store, tmp_path, "base")
    named = Dataset(name="shop", digest="sha256:" + digest_of_file(data), rows=2)
    unknown = Dataset(name="elsewhere", digest="sha256:" + "e" * 64, rows=9)
    tuned = publish(store, tmp_path, "tuned", base, named, unknown)
    save(store, result_of(base, "+" * 12))
    save(store, result_of(tuned, "-" * 8 + "+" * 4))
    return base, tuned


def test_a_page_and_json_of_what_the_store_has(
    store: Store, versions: tuple[ModelVersion, ModelVersion], data: Path, tmp_path: Path
) -> None:
    names = [version.name for version in versions]
    done = run(*names, "--html", tmp_path / "a.html", "--json", tmp_path / "a.json", "--data", data, *where(store))
    report = json.loads((tmp_path / "a.json").read_text())

    assert "B is better in 0, worse in 1 and not told apart in 0" in done.stdout
    assert [(v["letter"], v["name"], v["seconds"]) for v in report["versions"]] == [
        ("A", names[0], 61.5),
        ("B", names[1], 61.5),
    ]
    assert report["regressions"][0]["lost"] == 8
    (leak,) = report["leaks"]["found"]
    assert (leak["dataset"], leak["letters"], leak["records"], leak["items"]) == ("train.jsonl", ["B"], 2, 12)
    assert [(hit["item"], hit["line"], hit["similarity"]) for hit in leak["hits"]] == [("q3", 1, 1.0)]
    assert report["leaks"]["notes"] == [
        "The manifest of A names no training data.",
        "B was trained with elsewhere (eeeeeeeeeeee), which was not looked through; give it with --data.",
        "What the first base model of B was trained with is not known.",
    ]
    page = (tmp_path / "a.html").read_text()
    assert "1 of 12 questions" in page
    assert str(tmp_path) not in page + json.dumps(report)


def test_files_of_results_do_without_a_store(
    versions: tuple[ModelVersion, ModelVersion], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TUNEGATE_STORE", raising=False)
    (folder := tmp_path / "results").mkdir()
    for place, version in enumerate(versions):
        (folder / f"{place}.json").write_bytes(to_json([result_of(version, "+-")]))
    (folder / "review.json").write_text('{"schema": "another"}')

    done = run("--results", folder, "--json", tmp_path / "a.json")
    report = json.loads((tmp_path / "a.json").read_text())

    assert done.exit_code == 0
    assert [version["name"] for version in report["versions"]] == [version.name for version in versions]
    assert report["leaks"]["notes"][0] == "What A was trained with is not known: its manifest is not here."


def test_the_later_result_of_a_suite_counts(
    store: Store, versions: tuple[ModelVersion, ModelVersion], tmp_path: Path
) -> None:
    base = versions[0]
    later = result_of(base, "+-", started=business(0, "").started.replace(year=2027))
    (tmp_path / "later.json").write_bytes(to_json([later]))

    run(base.name, "--results", tmp_path / "later.json", "--json", tmp_path / "a.json", *where(store))
    (suite,) = json.loads((tmp_path / "a.json").read_text())["suites"]

    assert suite["rows"][0]["values"][0]["n"] == 2


def test_a_version_that_is_named_twice_is_one_column(
    store: Store, versions: tuple[ModelVersion, ModelVersion], tmp_path: Path
) -> None:
    base = versions[0]
    run(base.name, base.digest, "--json", tmp_path / "a.json", *where(store))

    assert len(json.loads((tmp_path / "a.json").read_text())["versions"]) == 1


def test_a_folder_with_a_dataset_info_is_all_that_it_names(
    store: Store, versions: tuple[ModelVersion, ModelVersion], data: Path, tmp_path: Path
) -> None:
    (tmp_path / "dataset_info.json").write_text('{"shop": {"file_name": "train.jsonl"}}')
    run(versions[1].name, "--data", tmp_path, "--json", tmp_path / "a.json", *where(store))
    (leak,) = json.loads((tmp_path / "a.json").read_text())["leaks"]["found"]

    assert (leak["dataset"], leak["letters"]) == ("shop", ["A"])


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["x/y/checkpoint-1"], "Name a store with --store"),
        (["--results", "nothing.json"], "There is no nothing.json"),
        (["--results", "other.json"], "other.json holds no evaluation"),
        (["x/y/checkpoint-1", "--results", "one.json"], "There is no version x/y/checkpoint-1 in the files"),
        (["--results", "empty"], "None of these versions has a result"),
        (["--results", "one.json", "--data", "gone.jsonl"], "There is no data set gone.jsonl; give --data a file"),
    ],
    ids=["no-store", "no-file", "other-file", "unknown-version", "nothing-measured", "no-data"],
)
def test_what_can_t_be_reported_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TUNEGATE_STORE", raising=False)
    (tmp_path / "other.json").write_text("[]")
    (tmp_path / "empty").mkdir()
    (tmp_path / "one.json").write_bytes(to_json([business(0, "+")]))

    with pytest.raises(UsageError, match=said.replace("(", r"\(")):
        run(*argv)


def test_a_store_wants_names(store: Store) -> None:
    with pytest.raises(UsageError, match="Name the versions"):
        run(*where(store))
    with pytest.raises(UsageError, match="There is no version x/y/checkpoint-1 in the store"):
        run("x/y/checkpoint-1", *where(store))


def where(store: Store) -> list[str]:
    return ["--store", store.uri, "--endpoint-url", store.endpoint_url or ""]
