"""`tunegate models compare`: what is known of versions, side by side."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tunegate.api.errors import UsageError
from tunegate.api.evaluation import Evaluation, Metric, Record
from tunegate.api.versions import BaseModel, Cost, Derived, ModelVersion, Producer, Release, Training
from tunegate.cli import root
from tunegate.store import Store
from tunegate.store.evaluations import save

LORA = Training(
    method="lora",
    cost=Cost(trainable_parameters=50000, parameters=1000000, seconds=61.5, peak_memory_bytes=1500000000),
)
SMALL = Derived(uri="s3://tunegate/tea/lora/checkpoint-1/", digest="sha256:" + "0" * 64, quantization="int8")


def run(*argv: str) -> Result:
    return CliRunner().invoke(root, ["models", "compare", *argv], catch_exceptions=False)


def publish(
    store: Store,
    tmp_path: Path,
    run_: str,
    training: Training | None,
    loss: float | None,
    derived: Derived | None = None,
) -> ModelVersion:
    (folder := tmp_path / run_ / "resume").mkdir(parents=True)
    (folder / "optimizer.pt").write_bytes(b"0" * 5_000_000)
    (folder.parent / "model.safetensors").write_bytes(run_.encode() * 100_000)
    producer = Producer(kind="test", loss=loss, training=training, derived=derived)
    release = Release(format="huggingface")
    return store.publish(folder.parent, f"tea/{run_}/checkpoint-1", release=release, producer=producer)


def measure(
    store: Store, version: ModelVersion, suite: str, value: float | None, questions: str = "1", right: str = ""
) -> None:
    result = Evaluation(
        version=version.name,
        digest=version.digest,
        suite=suite,
        suite_digest="sha256:" + questions * 64,
        metrics=(Metric(name="score", value=value, stderr=0.04, n=99), Metric(name="answered", value=1.0, n=99)),
        records=tuple(
            Record(
                id=f"q{n}", prompt=f"Question\n{n}?", expected="A", answer=mark, scores={"score": float(mark == "A")}
            )
            for n, mark in enumerate(right)
        ),
        code_version="1",
        started=datetime(2026, 1, 2, tzinfo=UTC),
        seconds=3.0,
    )
    save(store, result)


@pytest.fixture
def lora(store: Store, tmp_path: Path) -> ModelVersion:
    version = publish(store, tmp_path, "lora", LORA, 0.25)
    measure(store, version, "shop", 0.875)
    measure(store, version, "care", 0.5)
    return version


@pytest.fixture
def small(store: Store, tmp_path: Path) -> ModelVersion:
    version = publish(store, tmp_path, "lora-int8", Training(method="lora"), None, derived=SMALL)
    measure(store, version, "shop", 0.8)
    return version


def test_what_is_known_of_each_version_is_there_for_scripts(lora: ModelVersion, small: ModelVersion) -> None:
    rows = json.loads(run(lora.name, small.digest, "--json").stdout)

    assert [row["version"] for row in rows] == [lora.name, small.name]
    assert rows[0] == {
        "version": lora.name,
        "digest": lora.digest,
        "method": "lora",
        "trainableParameters": 50000,
        "parameters": 1000000,
        "seconds": 61.5,
        "peakMemoryBytes": 1500000000,
        "loss": 0.25,
        "bytes": rows[0]["bytes"],
        "baseBytes": None,
        "scores": {
            "care": {"metric": "score", "value": 0.5, "stderr": 0.04, "n": 99},
            "shop": {"metric": "score", "value": 0.875, "stderr": 0.04, "n": 99},
        },
    }
    assert 400_000 <= rows[0]["bytes"] < 401_000  # what only a run needs, to resume, is not served
    assert (rows[1]["method"], rows[1]["seconds"], rows[1]["loss"]) == ("lora, int8", None, None)


def test_a_report_takes_it_as_markdown(lora: ModelVersion, small: ModelVersion) -> None:
    lines = run(lora.name, small.name, "--markdown").stdout.splitlines()

    assert lines[0] == "| version | method | trained | seconds | peak memory | loss | served | care | shop |"
    assert lines[1] == "| " + " | ".join(["---"] * 9) + " |"
    assert lines[2].startswith(f"| {lora.name} | lora | 50,000 (5.00%) | 62 | 1.50 GB | 0.250 | 400 kB |")
    assert lines[2].endswith("| score 0.500 ± 0.040 | score 0.875 ± 0.040 |")
    assert lines[3].endswith("| - | score 0.800 ± 0.040 |")


def test_an_adapter_is_shown_on_its_base(lora: ModelVersion, store: Store, tmp_path: Path) -> None:
    (folder := tmp_path / "adapter").mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"0" * 7000)
    release = Release(format="lora-adapter", base=BaseModel(uri=lora.uri, digest=lora.digest))
    adapter = store.publish(folder, "tea/on/checkpoint-1", release=release, producer=Producer(kind="test"))
    assert "| 7 kB on 400 kB |" in run(adapter.name, "--markdown").stdout


def test_a_person_gets_a_table(lora: ModelVersion) -> None:
    shown = run(lora.name).stdout
    assert "trained" in shown
    assert "|" not in shown


def test_scores_on_other_questions_are_pointed_out(store: Store, lora: ModelVersion, small: ModelVersion) -> None:
    assert run(lora.name, small.name).stderr == ""
    measure(store, small, "shop", 0.8, questions="2")

    assert "shop had other questions" in run(lora.name, small.name).stderr
    assert "care" not in run(lora.name, small.name).stderr


def test_two_versions_are_compared_question_by_question(store: Store, lora: ModelVersion, small: ModelVersion) -> None:
    measure(store, lora, "shop", 0.5, right="AABB")
    measure(store, small, "shop", 0.5, right="ABAA")

    lines = run(lora.name, small.name, "--items").stdout.splitlines()
    assert lines[0] == (
        "shop: 2 gained, 1 lost of 4 (+25.0%); p = 1 (exact McNemar), about 88 more questions would show it"
    )
    assert lines[1:4] == ["  - q1  Question 1?", "      before: A", "      after:  B"]
    assert [line[:6] for line in lines if line.startswith("  +")] == ["  + q2", "  + q3"]
    (shop,) = json.loads(run(lora.name, small.name, "--items", "--json").stdout)
    assert (shop["gained"], shop["lost"], [flip["id"] for flip in shop["flips"]]) == (2, 1, ["q1", "q2", "q3"])


def test_comparing_by_question_needs_two_versions_and_the_same_questions(
    store: Store, lora: ModelVersion, small: ModelVersion
) -> None:
    with pytest.raises(UsageError, match="--items compares two versions"):
        run(lora.name, "--items")
    with pytest.raises(UsageError, match="No suite asked both"):
        run(lora.name, small.name, "--items")
