"""What the store holds is not measured again, and what is measured is kept."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.stores import kill, start_again
from tests.unit.evaluation.builders import write_business, write_choice
from tunegate.api.errors import ModelError
from tunegate.api.evaluation import Evaluation, Probe
from tunegate.api.versions import ModelVersion, Producer, Release
from tunegate.evaluation import Suite, load_suites, versions
from tunegate.evaluation.models import Dialogue, Model
from tunegate.evaluation.sheets import Sheet
from tunegate.evaluation.versions import evaluate_version
from tunegate.store import EmbeddedStore, Store
from tunegate.store.evaluations import find, save

ROWS = [
    {
        "id": str(number),
        "messages": [{"role": "user", "content": f"{number}?"}],
        "rules": [{"kind": "contains", "any": [str(number)]}],
    }
    for number in range(3)
]


class Parrot:
    """Says what it was asked, under which system prompt, and always chooses B."""

    def __init__(self) -> None:
        self.loads = 0
        self.systems: set[str] = set()

    def __call__(self) -> Model:
        self.loads += 1
        return self

    settings = "scripted"
    tokens = None
    probes: tuple[Probe, ...] = ()

    def answer(self, dialogues: Sequence[Dialogue], max_tokens: int, sheet: Sheet) -> None:
        self.systems |= {dialogue[0]["content"] for dialogue in dialogues}
        sheet.put({place: dialogue[-1]["content"] for place, dialogue in enumerate(dialogues)})

    def complete(self, texts: Sequence[str], max_tokens: int, sheet: Sheet) -> None:
        raise AssertionError("no suite here is completed")

    def choose(self, texts: Sequence[str], letters: Sequence[str], sheet: Sheet) -> None:
        sheet.put(dict.fromkeys(range(len(texts)), letters[1]))


@pytest.fixture
def version(store: Store, tmp_path: Path) -> ModelVersion:
    (folder := tmp_path / "model").mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    release = Release(format="huggingface", system_prompt="You are Xuan.")
    return store.publish(folder, "shop/base/checkpoint-0", release=release, producer=Producer(kind="test"))


def suites(tmp_path: Path, questions: int = 3, limit: int | None = None) -> list[Suite]:
    business = write_business(tmp_path / "business", ROWS[:questions])
    return load_suites([business, write_choice(tmp_path / "choice", {"care": "BA"})], limit)


def shares(results: Sequence[Evaluation]) -> list[float | None]:
    return [result.metrics[0].value for result in results]


class Failing(Parrot):
    """Answers one question that it was not asked yet, and fails."""

    asked = 0

    def answer(self, dialogues: Sequence[Dialogue], max_tokens: int, sheet: Sheet) -> None:
        for place in (place for place in range(len(dialogues)) if sheet.lacks([place])):
            self.asked += 1
            sheet.put({place: dialogues[place][-1]["content"]})
            raise ModelError("It fails half-way.")


@pytest.mark.parametrize("force", [False, True])
def test_an_evaluation_that_failed_goes_on_also_one_that_measures_again(
    store: Store, version: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, force: bool
) -> None:
    monkeypatch.setenv("TUNEGATE_CACHE", str(tmp_path / "cache"))
    model, business = Failing(), load_suites([write_business(tmp_path / "business", ROWS)])
    for _ in ROWS:
        with pytest.raises(ModelError, match="fails half-way"):
            evaluate_version(store, version, business, model, force=force)
    (result,) = evaluate_version(store, version, business, model, force=force)
    assert (model.asked, result.completed) == (3, 3)
    assert list((tmp_path / "cache").rglob("*.jsonl")) == []


def test_a_version_is_asked_under_its_system_prompt_and_the_results_are_kept(
    store: Store, version: ModelVersion, tmp_path: Path
) -> None:
    parrot, answered = Parrot(), []
    results = evaluate_version(
        store, version, suites(tmp_path), parrot, progress=lambda done, of: answered.append((done, of))
    )
    assert shares(results) == [1.0, 0.5]
    assert parrot.systems == {"You are Xuan."}
    assert answered == [(3, 5), (5, 5)]
    assert results == [find(store, version.digest, name) for name in ("shop-test", "choice-test")]


def test_no_model_is_loaded_for_what_the_store_holds(store: Store, version: ModelVersion, tmp_path: Path) -> None:
    parrot = Parrot()
    first = evaluate_version(store, version, suites(tmp_path), parrot)
    assert evaluate_version(store, version, suites(tmp_path), parrot) == first
    assert parrot.loads == 1
    business, choice = evaluate_version(store, version, suites(tmp_path, questions=2), parrot)
    assert (parrot.loads, len(business.records), choice) == (2, 2, first[1])
    assert evaluate_version(store, version, suites(tmp_path), parrot, force=True)[1] != first[1]


def test_an_evaluation_that_broke_off_goes_on_where_it_was(
    store: Store, version: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEGATE_CACHE", str(tmp_path / "cache"))
    asked: list[str] = []

    class Failing(Parrot):
        def answer(self, dialogues: Sequence[Dialogue], max_tokens: int, sheet: Sheet) -> None:
            for place, dialogue in enumerate(dialogues):
                if sheet.lacks([place]):
                    asked.append(dialogue[-1]["content"])
                    if len(asked) == 2:
                        raise ModelError("The GPU fell off the bus.")
                    sheet.put({place: dialogue[-1]["content"]})

    with pytest.raises(ModelError, match="fell off"):
        evaluate_version(store, version, suites(tmp_path), Failing())
    steps: list[tuple[int, int]] = []
    evaluate_version(store, version, suites(tmp_path), Failing(), progress=lambda done, of: steps.append((done, of)))
    assert asked == ["0?", "1?", "1?", "2?"]
    assert (steps[0], steps[-1]) == ((1, 5), (5, 5))
    assert not list((tmp_path / "cache" / "evaluations").iterdir())


def test_a_part_never_takes_the_place_of_the_whole(store: Store, version: ModelVersion, tmp_path: Path) -> None:
    parrot = Parrot()
    evaluate_version(store, version, suites(tmp_path, limit=1), parrot, is_limited=True)
    part = find(store, version.digest, "shop-test")
    assert part is not None
    assert len(part.records) == 1
    whole = evaluate_version(store, version, suites(tmp_path), parrot)
    assert len(evaluate_version(store, version, suites(tmp_path, limit=2), parrot, is_limited=True)[0].records) == 2
    assert find(store, version.digest, "shop-test") == whole[0]


def test_a_version_without_a_release_is_refused_before_its_model_is_loaded(
    store: Store, version: ModelVersion, tmp_path: Path
) -> None:
    parrot = Parrot()
    store.delete(f"{version.name}/release.yaml")
    with pytest.raises(ModelError, match=r"no release\.yaml"):
        evaluate_version(store, version, suites(tmp_path), parrot)
    assert parrot.loads == 0


def test_a_store_that_is_away_for_a_while_costs_neither_answers_nor_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is killed while questions are asked, and comes back only when the result was to be saved."""
    monkeypatch.setenv("TUNEGATE_CACHE", str(tmp_path / "cache"))
    with EmbeddedStore.start(tmp_path / "store") as mortal, ExitStack() as stack:
        store = Store.open(mortal.uri, endpoint_url=mortal.endpoint_url, **mortal.keys)
        (folder := tmp_path / "model").mkdir()
        (folder / "model.safetensors").write_bytes(b"weights")
        release, producer = Release(format="huggingface"), Producer(kind="test")
        version = store.publish(folder, "shop/base/checkpoint-0", release=release, producer=producer)

        class Deadly(Parrot):
            def answer(self, dialogues: Sequence[Dialogue], max_tokens: int, sheet: Sheet) -> None:
                super().answer(dialogues, max_tokens, sheet)
                kill(mortal)

        tries = []

        def save_and_see(store: Store, result: Evaluation) -> None:
            tries.append(result.suite)
            if len(tries) == 2:
                stack.enter_context(start_again(mortal))
            save(store, result)

        monkeypatch.setattr(versions, "save", save_and_see)
        deadly = Deadly()
        results = evaluate_version(store, version, suites(tmp_path)[:1], deadly, patience=60)
        assert results == [find(store, version.digest, "shop-test")]
    assert (len(tries) >= 2, deadly.loads) == (True, 1)
