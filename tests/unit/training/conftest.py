"""A store with a tiny base model and a data set, and two runs that nobody disturbs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.forking import Forking
from tests.unit.training import forked
from tests.unit.training.alone import train_here
from tests.unit.training.builders import dialogues, make_config, texts, write_dialogues
from tests.unit.training.forked import Forks
from tunegate.api.versions import ModelVersion, Producer, Release
from tunegate.models import make_tiny
from tunegate.store import EmbeddedStore, Store
from tunegate.training import Progress, TrainConfig, train
from tunegate.training.run.progress import Report

ROWS = 24
# With dropout, and checkpoints in the middle of epochs: what is hardest to repeat exactly.
LORA: dict[str, Any] = {"finetuning_type": "lora", "lora_dropout": 0.1, "save_strategy": "steps", "save_steps": 5}
LORA |= {"nproc_per_node": 1, "num_train_epochs": 2}


@dataclass(frozen=True)
class Shop:
    store: Store
    data: Path
    base: ModelVersion
    folder: Path
    environment: Mapping[str, str]

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
def forks(forking_process: Forking) -> Iterator[Forks]:
    with forked.forks(forking_process.python) as running:
        yield running


@pytest.fixture(scope="session")
def founded(embedded_store: EmbeddedStore, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    folder = tmp_path_factory.mktemp("shop")
    environment = {**embedded_store.environment, "TUNEGATE_CACHE": str(folder / "cache")}
    model = make_tiny(folder / "model", texts())
    data = write_dialogues(folder / "data", dialogues(ROWS))
    release = Release(format="huggingface", system_prompt="Be kind.", generation={"temperature": 0.5})
    with in_environment(environment):
        store = Store.open(f"{embedded_store.uri}/{folder.name}", endpoint_url=embedded_store.endpoint_url)
        base = store.publish(model, "tiny/base/checkpoint-0", release=release, producer=Producer(kind="test"))
    return Shop(store, data, base, folder, environment)


@pytest.fixture(scope="module")
def shop(founded: Shop) -> Iterator[Shop]:
    """The shop of all these tests, as the environment of this file's names it."""
    with in_environment(founded.environment):
        yield founded


@pytest.fixture(scope="session")
def full(founded: Shop) -> Run:
    """In two processes."""
    with in_environment(founded.environment):
        return _run(train, founded.config("full", run="full"))


@pytest.fixture(scope="session")
def lora(founded: Shop) -> Run:
    """In one process, ours."""
    with in_environment(founded.environment):
        return _run(train_here, founded.config("lora", run="lora", **LORA))


@contextmanager
def in_environment(variables: Mapping[str, str]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as environment:
        for name, value in variables.items():
            environment.setenv(name, value)
        yield


def _run(train: Callable[[TrainConfig, Report], list[ModelVersion]], config: TrainConfig) -> Run:
    news: list[Progress | ModelVersion] = []
    return Run(config, train(config, news.append), news)
