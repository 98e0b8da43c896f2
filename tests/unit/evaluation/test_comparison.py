"""What is known of versions, side by side."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.builders import make_evaluation
from tunegate.api.versions import BaseModel, Cost, Derived, ModelVersion, Producer, Release, Training
from tunegate.evaluation.comparison import Compared, Score, compare
from tunegate.store import Store
from tunegate.store.evaluations import save

LORA = Training(method="lora", cost=Cost(trainable_parameters=5, parameters=10, seconds=61.5, peak_memory_bytes=15))
SMALL = Derived(uri="s3://tunegate/tea/lora/checkpoint-1/", digest="sha256:" + "0" * 64, quantization="int8")


def publish(store: Store, tmp_path: Path, run: str, producer: Producer) -> ModelVersion:
    (folder := tmp_path / run / "resume").mkdir(parents=True)
    (folder / "optimizer.pt").write_bytes(b"0" * 5_000_000)
    (folder.parent / "model.safetensors").write_bytes(run.encode() * 100_000)
    name = f"tea/{run}/checkpoint-1"
    return store.publish(folder.parent, name, release=Release(format="huggingface"), producer=producer)


@pytest.fixture
def lora(store: Store, tmp_path: Path) -> ModelVersion:
    version = publish(store, tmp_path, "lora", Producer(kind="test", loss=0.25, training=LORA))
    save(store, make_evaluation(version, "shop", score=0.875, answered=1.0))
    save(store, make_evaluation(version, "care", score=0.5))
    return version


@pytest.fixture
def small(store: Store, tmp_path: Path) -> ModelVersion:
    producer = Producer(kind="test", training=Training(method="lora"), derived=SMALL)
    version = publish(store, tmp_path, "lora-int8", producer)
    save(store, make_evaluation(version, "shop", score=None))
    return version


def test_what_is_known_of_each_version_stands_in_a_row(store: Store, lora: ModelVersion, small: ModelVersion) -> None:
    (first, second), asked_differently = compare(store, [lora.name, small.digest, lora.name])

    shop = make_evaluation(lora, "shop", score=0.875).metrics[0]
    assert first.scores["shop"] == Score(metric="score", value=0.875, stderr=shop.stderr, n=shop.n)
    assert (first.method, first.trainable_parameters, first.parameters, first.seconds) == ("lora", 5, 10, 61.5)
    assert (first.peak_memory_bytes, first.loss) == (15, 0.25)
    assert 400_000 <= first.bytes < 401_000  # what only a run needs, to resume, is not served
    assert second == Compared(
        version=small.name,
        digest=small.digest,
        method="lora, int8",
        bytes=second.bytes,
        scores={"shop": Score(metric="score", value=None, stderr=second.scores["shop"].stderr, n=shop.n)},
    )
    assert not asked_differently


def test_an_adapter_is_told_with_the_model_that_it_is_served_on(
    store: Store, lora: ModelVersion, tmp_path: Path
) -> None:
    def tune(base: ModelVersion, run: str, digest: str = "") -> ModelVersion:
        (folder := tmp_path / run).mkdir()
        (folder / "adapter_model.safetensors").write_bytes(b"0" * 1000)
        release = Release(format="lora-adapter", base=BaseModel(uri=base.uri, digest=digest or base.digest))
        return store.publish(folder, f"tea/{run}/checkpoint-1", release=release, producer=Producer(kind="test"))

    once = tune(lora, "once")
    twice, lost = tune(once, "twice"), tune(lora, "lost", "sha256:" + "0" * 64)
    rows, _ = compare(store, [version.name for version in (lora, once, twice, lost)])
    whole, first, *_ = (row.bytes for row in rows)
    assert [row.base_bytes for row in rows] == [None, whole, whole + first, None]


def test_a_version_that_an_engine_elsewhere_answered_for_stands_as_any_other(
    store: Store, lora: ModelVersion, small: ModelVersion
) -> None:
    (before,), _ = compare(store, [lora.name])
    save(store, replace(make_evaluation(lora, "shop", score=0.875, answered=1.0), settings="url"))
    (after,), _ = compare(store, [lora.name])
    assert (after, after.seconds) == (before, 61.5)


def test_suites_with_other_questions_are_named(store: Store, lora: ModelVersion, small: ModelVersion) -> None:
    save(store, replace(make_evaluation(small, "shop", score=0.8), suite_digest="sha256:other"))

    assert compare(store, [lora.name, small.name])[1] == {"shop"}
