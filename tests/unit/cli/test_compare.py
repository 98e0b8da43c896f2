"""`tunegate models compare`: what is known of versions, side by side."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tunegate.api.evaluation import Evaluation, Metric
from tunegate.api.versions import Cost, Derived, ModelVersion, Producer, Release, Training
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


def measure(store: Store, version: ModelVersion, suite: str, value: float | None, questions: str = "1") -> None:
    result = Evaluation(
        version=version.name,
        digest=version.digest,
        suite=suite,
        suite_digest="sha256:" + questions * 64,
        metrics=(Metric(name="score", value=value, stderr=0.04, n=99), Metric(name="answered", value=1.0, n=99)),
        records=(),
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


def test_a_person_gets_a_table(lora: ModelVersion) -> None:
    shown = run(lora.name).stdout
    assert "trained" in shown
    assert "|" not in shown


def test_scores_on_other_questions_are_pointed_out(store: Store, lora: ModelVersion, small: ModelVersion) -> None:
    assert run(lora.name, small.name).stderr == ""
    measure(store, small, "shop", 0.8, questions="2")

    assert "shop had other questions" in run(lora.name, small.name).stderr
    assert "care" not in run(lora.name, small.name).stderr
