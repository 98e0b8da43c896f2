"""Shards put together are what one process would have measured, whoever is killed between any two of their calls."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.builders import at
from tunegate.api.codec import to_json
from tunegate.api.errors import EvaluationError, ModelError, UsageError
from tunegate.api.evaluation import Evaluation
from tunegate.api.versions import ModelVersion, Producer, Release
from tunegate.evaluation import Suite, load_suites
from tunegate.evaluation.models.local import LocalModel
from tunegate.evaluation.run import evaluate
from tunegate.evaluation.shards import Shard, Sharded
from tunegate.evaluation.versions import evaluate_version
from tunegate.store import Store
from tunegate.store.evaluations import find


@pytest.fixture
def version(store: Store, tmp_path: Path) -> ModelVersion:
    (folder := tmp_path / "model").mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    return store.publish(
        folder, "shop/run/checkpoint-5", release=Release(format="huggingface"), producer=Producer(kind="test")
    )


@pytest.fixture
def suites(business_folder: Path, choice_folder: Path) -> list[Suite]:
    return load_suites([business_folder, choice_folder])


@pytest.fixture(scope="module")
def model(learned: Path) -> LocalModel:
    return LocalModel(learned, batch_size=2)


def shard(store: Store, version: ModelVersion, suites: Sequence[Suite], place: str, load: Callable[[], Any]) -> Any:
    return evaluate_version(store, version, suites, load, shard=Shard.parse(place))


def timeless(result: Evaluation | None) -> bytes:
    """All of it but when it was measured, and for how long."""
    assert result is not None
    return to_json(msgspec.structs.replace(result, started=at(0), seconds=0.0))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)], ids=str)
def test_shards_in_any_order_make_byte_for_byte_what_one_process_does(
    store: Store, version: ModelVersion, suites: list[Suite], model: LocalModel, order: tuple[int, ...]
) -> None:
    whole = evaluate(model, version, suites)
    *first, last = (shard(store, version, suites, f"{index}/3", lambda: model) for index in order)
    assert first == [[], []]
    assert [timeless(result) for result in last] == [timeless(result) for result in whole]
    assert last == [find(store, version.digest, suite.name) for suite in suites]
    assert store.keys(".tunegate/shards/") == []


def test_every_batch_is_asked_by_one_shard_alone(
    store: Store, version: ModelVersion, suites: list[Suite], learned: Path
) -> None:
    asked: list[tuple[int, ...]] = []

    class Watched(LocalModel):
        def _generate(self, prompts: Sequence[list[int]], max_tokens: int) -> list[str | None]:
            asked.extend(tuple(prompt) for prompt in prompts)
            return super()._generate(prompts, max_tokens)

    watched = Watched(learned, batch_size=1)
    counts = []
    for index in range(3):
        before = len(asked)
        shard(store, version, suites[:1], f"{index}/3", lambda: watched)
        counts.append(len(asked) - before)
    assert counts == [1, 1, 1]
    assert len(set(asked)) == 3


def test_a_shard_that_was_killed_asks_on_where_it_was(
    store: Store, version: ModelVersion, suites: list[Suite], learned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunegate.evaluation.shards._KEEP_SECONDS", 0)
    asked = []

    class Failing(LocalModel):
        def _generate(self, prompts: Sequence[list[int]], max_tokens: int) -> list[str | None]:
            asked.append(len(prompts))
            if len(asked) == 2:
                raise ModelError("The GPU fell off the bus.")
            return super()._generate(prompts, max_tokens)

    failing = Failing(learned, batch_size=1)
    with pytest.raises(ModelError, match="fell off"):
        shard(store, version, suites[:1], "0/1", lambda: failing)
    (result,) = shard(store, version, suites[:1], "0/1", lambda: failing)
    assert len(asked) == 4, "three questions, and the one that was cut off"
    assert timeless(result) == timeless(evaluate(LocalModel(learned, batch_size=1), version, suites[:1])[0])


@pytest.mark.parametrize("deadly", range(8))
def test_whichever_call_to_the_store_is_the_last_of_a_shard_the_next_try_makes_the_result(
    store: Store,
    version: ModelVersion,
    suites: list[Suite],
    model: LocalModel,
    monkeypatch: pytest.MonkeyPatch,
    deadly: int,
) -> None:
    """Kill -9 before the n-th write, whatever it is; the Job starts the shard's pod again, and no other."""
    counter = itertools.count()

    def mortal(call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any) -> Any:
            if next(counter) == deadly:
                raise KeyboardInterrupt
            return call(*arguments)

        return called

    for name in ("put", "delete"):
        monkeypatch.setattr(store, name, mortal(getattr(store, name)))
    for index in (1, 0):
        for _ in range(2):
            try:
                shard(store, version, suites[:1], f"{index}/2", lambda: model)
                break
            except KeyboardInterrupt:
                continue
    assert timeless(find(store, version.digest, suites[0].name)) == timeless(evaluate(model, version, suites[:1])[0])


def test_shards_of_unlike_nodes_are_not_mixed(
    store: Store, version: ModelVersion, suites: list[Suite], model: LocalModel, learned: Path
) -> None:
    shard(store, version, suites[:1], "0/2", lambda: model)
    with pytest.raises(EvaluationError, match="run on nodes of one kind"):
        shard(store, version, suites[:1], "1/2", lambda: LocalModel(learned, batch_size=1))
    shard(store, version, suites[:1], "0/2", lambda: model)
    (result,) = shard(store, version, suites[:1], "1/2", lambda: model)
    assert result.settings == model.settings


def test_a_shard_of_what_the_store_holds_loads_no_model(
    store: Store, version: ModelVersion, suites: list[Suite], model: LocalModel
) -> None:
    (whole,) = evaluate_version(store, version, suites[:1], lambda: model)
    assert shard(store, version, suites[:1], "1/2", lambda: pytest.fail("loaded")) == [whole]


def test_other_questions_are_other_shards(
    store: Store, version: ModelVersion, business_folder: Path, model: LocalModel, tmp_path: Path
) -> None:
    fewer = shutil.copytree(business_folder, tmp_path / "fewer")
    lines = (fewer / "questions.jsonl").read_text().splitlines(keepends=True)
    (fewer / "questions.jsonl").write_text("".join(lines[:2]))
    shard(store, version, load_suites([business_folder]), "0/2", lambda: model)
    assert shard(store, version, load_suites([fewer]), "1/2", lambda: model) == []


@pytest.mark.parametrize("text", ["", "1", "2/2", "-1/2", "a/b", "0/0"])
def test_what_is_no_shard_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match="such as 0/4"):
        Shard.parse(text)


def test_answers_that_are_missing_are_asked_again(
    store: Store, version: ModelVersion, suites: list[Suite], model: LocalModel
) -> None:
    sharded = Sharded(store, version, suites[0], "", 2)
    shard(store, version, suites[:1], "0/2", lambda: model)
    part = sharded._read(0)
    assert part is not None
    sharded._write(1, msgspec.structs.replace(part, answers=()))
    with pytest.raises(EvaluationError, match="have not answered every question"):
        shard(store, version, suites[:1], "0/2", lambda: model)
    assert shard(store, version, suites[:1], "1/2", lambda: model) == []
    assert len(shard(store, version, suites[:1], "0/2", lambda: model)) == 1
