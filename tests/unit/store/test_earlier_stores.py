"""A store, its documents and objects, as tunegate 0.1.0 (2d11983) wrote them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunegate.api.codec import from_json
from tunegate.api.kubernetes import read_promotion
from tunegate.api.policy import read_policy_file
from tunegate.api.promotion import Promotion
from tunegate.api.versions import Cost, Dataset, Derived, Producer, Training
from tunegate.feedback import FeedbackLog
from tunegate.store import Store
from tunegate.store.evaluations import find
from tunegate.store.release import read_release
from tunegate.training.run.checkpoints import Marker
from tunegate_operator.types import read_version

WRITTEN = Path(__file__).parents[2] / "data" / "written_by_0_1_0"
BASE, FULL, LORA, SMALL = (
    f"shop/{run}/checkpoint-{step}" for run, step in (("base", 0), ("full", 6), ("lora", 12), ("lora-int8", 12))
)


@pytest.fixture
def earlier(store: Store) -> Store:
    """The files of that store, in a new one."""
    folder = WRITTEN / "store"
    for path in (path for path in folder.rglob("*") if path.is_file()):
        store.put(path.relative_to(folder).as_posix().replace("_tunegate/", ".tunegate/"), path.read_bytes())
    return store


def test_its_versions_are_listed_found_verified_and_fetched(earlier: Store, tmp_path: Path) -> None:
    versions = earlier.list()

    assert [version.name for version in versions] == [BASE, FULL, LORA, SMALL]
    for version in versions:
        assert earlier.resolve(version.digest) == earlier.resolve(version.name) == version
        assert earlier.verify(version.name).digest == version.digest
        assert earlier.fetch(version.name, tmp_path / version.run, digest=version.digest).is_dir()


def test_what_its_producers_noted_is_typed(earlier: Store) -> None:
    base, full, lora, small = (earlier.manifest(name) for name in (BASE, FULL, LORA, SMALL))

    assert base.producer == Producer(kind="tunegate quickstart", run="base", arguments={"source": "tiny"})
    cost = Cost(
        trainable_parameters=811000, parameters=811000, seconds=61.5, peak_memory_bytes=512000000, eval_loss=0.625
    )
    assert full.producer == Producer(
        kind="tunegate train",
        run="full",
        arguments={"learning_rate": 0.001},
        seed=42,
        code_version="0.1.0",
        datasets=(Dataset(name="shop", digest="sha256:" + "5" * 64, rows=24),),
        step=6,
        epoch=1.0,
        loss=0.5,
        training=Training(method="full", base=base.digest, global_batch=16, total_steps=12, cost=cost),
    )
    assert [manifest.is_last for manifest in (base, full, lora)] == [False, False, True]
    uri = f"s3://tunegate/{LORA}/"
    assert small.producer.derived == Derived(uri=uri, digest=lora.digest, quantization="int8", weight_error=0.0061)
    assert small.producer.training == lora.producer.training


def test_its_releases_are_read_and_stay_the_same_version(earlier: Store, tmp_path: Path) -> None:
    release = read_release(earlier, earlier.resolve(FULL))
    assert (release.system_prompt, release.generation) == ("You are Xuan.", {"max_tokens": 64})

    version = earlier.resolve(SMALL)
    folder = earlier.fetch(SMALL, tmp_path / "small")
    release = read_release(earlier, version)
    assert earlier.publish(folder, SMALL, release=release, producer=Producer(kind="again")) == version


def test_its_results_and_votes_count(earlier: Store) -> None:
    version = earlier.resolve(LORA)

    result = find(earlier, version.digest, "shop-choice")
    assert result is not None
    assert (result.metrics[0].value, result.records[0].answer) == (0.875, "A")
    log = FeedbackLog(earlier)
    assert (log.tally(version.digest).up, log.tally(version.digest).down) == (1, 1)
    assert {record.feedback.comment for record in log.list(version.digest)} == {"Good tea."}


def test_its_checkpoints_can_be_resumed_from(earlier: Store) -> None:
    body = earlier.get(f"{FULL}/resume/complete.json")
    assert body is not None

    marker = from_json(body, Marker, "complete.json")

    assert (marker.step, marker.total_steps) == (6, 12)


def test_its_policy_and_attempts_are_read() -> None:
    text = (WRITTEN / "policy.yaml").read_text()
    assert read_policy_file(text, "policy.yaml").model == "shop"
    attempt = from_json((WRITTEN / "promotion.json").read_bytes(), Promotion, "promotion.json")
    assert (attempt.status.phase, attempt.status.weight, attempt.candidate.name) == ("Progressing", 10, LORA)

    version = read_version(json.loads((WRITTEN / "modelversion-object.json").read_bytes()))
    assert version.digest == attempt.candidate.digest
    assert read_promotion(json.loads((WRITTEN / "promotion-object.json").read_bytes())) == attempt
