"""A run's curve, from the store: the trainer's log beside what its checkpoints were measured at."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.builders import make_evaluation
from tunegate.api.errors import NotFoundError
from tunegate.api.versions import Producer, Release
from tunegate.store import Store
from tunegate.store.evaluations import save
from tunegate.training.run.curve import Point, Scores, read_curve


def published(store: Store, folder: Path, step: int, *, log: bool = True, score: float | None = None) -> None:
    source = folder / str(step)
    (source / "resume").mkdir(parents=True)
    (source / "model.safetensors").write_bytes(b"%d" % step)
    if log:
        state = {"log_history": [{"step": each, "loss": 3 / each, "learning_rate": 0.1} for each in range(1, step + 1)]}
        (source / "resume/trainer_state.json").write_bytes(msgspec.json.encode(state))
    producer = Producer(kind="test", run="run-1", step=step, loss=3 / step)
    release = Release(format="huggingface")
    version = store.publish(source, f"shop/run-1/checkpoint-{step}", release=release, producer=producer)
    if score is not None:
        save(store, make_evaluation(version, score=score))


def test_the_newest_checkpoint_has_the_log_and_every_one_its_points(store: Store, tmp_path: Path) -> None:
    for step, score in ((2, 0.5), (4, None), (6, 0.75)):
        published(store, tmp_path, step, score=score)
    history, points = read_curve(store, "shop", "run-1")
    assert [entry["step"] for entry in history] == [1, 2, 3, 4, 5, 6]
    assert points == [
        Point(step=2, suite="quality", metric="score", value=0.5, low=0.48, high=0.52),
        Point(step=6, suite="quality", metric="score", value=0.75, low=0.73, high=0.77),
    ]


def test_a_run_that_is_published_without_its_log_has_what_the_manifests_say(store: Store, tmp_path: Path) -> None:
    published(store, tmp_path, 3, log=False)
    assert read_curve(store, "shop", "run-1") == ([{"step": 3, "loss": 1.0}], [])


def test_each_result_is_read_once(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published(store, tmp_path, 2, score=0.5)
    scores, versions = Scores(store), store.list("shop")
    first = scores.look(versions)
    published(store, tmp_path, 4, score=0.6)
    get, read = store.get, []
    monkeypatch.setattr(store, "get", lambda key: (read.append(key), get(key))[1])
    assert scores.look(store.list("shop"))[:1] == first
    assert len([key for key in read if key.startswith(".tunegate/evaluations/")]) == 1


def test_a_run_that_is_not_there_is_told_with_how_to_find_it(store: Store) -> None:
    with pytest.raises(NotFoundError, match="see what it has: tunegate models list shop"):
        read_curve(store, "shop", "run-1")
