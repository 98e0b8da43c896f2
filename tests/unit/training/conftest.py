"""A store with a tiny base model and a data set, and two runs that nobody disturbs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.unit.training import forked
from tests.unit.training.builders import dialogues, make_config, texts, write_dialogues
from tests.unit.training.forked import Forks
from tunegate.api.versions import ModelVersion, Producer, Release
from tunegate.models import make_tiny
from tunegate.store import EmbeddedStore, Store
from tunegate.training import Progress, TrainConfig, train

ROWS = 24
# With dropout, and checkpoints in the middle of epochs: what is hardest to repeat exactly.
LORA: dict[str, Any] = {"finetuning_type": "lora", "lora_dropout": 0.1, "save_strategy": "steps", "save_steps": 5}


@dataclass(frozen=True)
class Shop:
    store: Store
    data: Path
    base: ModelVersion
    folder: Path

    def config(self, output: str, **changes: Any) -> TrainConfig:
        return make_config(
            self.store.uri, self.data, self.folder / output, endpoint_url=self.store.endpoint_url, **changes
        )


@dataclass(frozen=True)
class Run:
    config: TrainConfig
    versions: list[ModelVersion]
    news: list[Progress | ModelVersion]

    @property
    def output(self) -> Path:
        return Path(self.config.output_dir)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of these tests' own, not the user's."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TUNEGATE_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    with forked.forks() as running:
        yield running


@pytest.fixture(scope="module")
def shop(embedded_store: EmbeddedStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    with pytest.MonkeyPatch.context() as environment:
        for name, value in embedded_store.environment.items():
            environment.setenv(name, value)
        environment.setenv("TUNEGATE_CACHE", str(folder / "cache"))
        store = Store.open(f"{embedded_store.uri}/{folder.name}", endpoint_url=embedded_store.endpoint_url)
        model = make_tiny(folder / "model", texts())
        release = Release(format="huggingface", system_prompt="Be kind.", generation={"temperature": 0.5})
        base = store.publish(model, "tiny/base/checkpoint-0", release=release, producer=Producer(kind="test"))
        data = write_dialogues(folder / "data", dialogues(ROWS))
        yield Shop(store, data, base, folder)


@pytest.fixture(scope="module")
def full(shop: Shop) -> Run:
    return _train(shop.config("full", run="full"))


@pytest.fixture(scope="module")
def lora(shop: Shop) -> Run:
    return _train(shop.config("lora", run="lora", **LORA))


def _train(config: TrainConfig) -> Run:
    news: list[Progress | ModelVersion] = []
    return Run(config, train(config, news.append), news)
