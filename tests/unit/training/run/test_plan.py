from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.unit.training.builders import dialogues, make_config, texts, write_dialogues, write_lines
from tunegate.api.errors import DataError, ModelError, NotFoundError, UsageError
from tunegate.models import make_tiny
from tunegate.store import Store
from tunegate.store.client import connect, parse_uri
from tunegate.training.config import check_config
from tunegate.training.run.plan import (
    accumulation,
    check_same_run,
    for_processes,
    make_plan,
    read_record,
    record_of,
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny") / "model", texts())


def test_too_many_unusable_records_are_refused_and_kept_by_name(store: Store, tiny: Path, tmp_path: Path) -> None:
    data = write_dialogues(tmp_path / "data", dialogues(9))
    with (data / "shop.jsonl").open("a") as stream:
        stream.write("{\n")
    config = make_config(store.uri, data, tmp_path, model_name_or_path=str(tiny))

    with pytest.raises(DataError, match=r"1 of 10 records were rejected.*shop\.jsonl:10: not valid JSON"):
        make_plan(config, store, tmp_path, 2)

    assert '"line":10' in (tmp_path / "rejected.jsonl").read_text()


def test_an_empty_corpus_is_refused(store: Store, tiny: Path, tmp_path: Path) -> None:
    data = write_dialogues(tmp_path / "data", [])
    write_lines(data / "shop.jsonl", [])

    with pytest.raises(DataError, match="holds no records; fill it"):
        make_plan(make_config(store.uri, data, tmp_path, model_name_or_path=str(tiny)), store, tmp_path, 2)


def test_a_base_that_is_neither_folder_nor_version_names_what_there_is(store: Store, tmp_path: Path) -> None:
    data = write_dialogues(tmp_path / "data", dialogues(3))

    with pytest.raises(NotFoundError, match="no version tiny/base/checkpoint-0"):
        make_plan(make_config(store.uri, data, tmp_path), store, tmp_path, 2)


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json"])
def test_a_base_folder_that_lacks_a_file_is_refused(store: Store, tiny: Path, tmp_path: Path, missing: str) -> None:
    data = write_dialogues(tmp_path / "data", dialogues(3))
    shutil.copytree(tiny, tmp_path / "model")
    (tmp_path / "model" / missing).unlink()
    config = make_config(store.uri, data, tmp_path, model_name_or_path=str(tmp_path / "model"))

    with pytest.raises(ModelError, match=missing):
        make_plan(config, store, tmp_path, 2)


def test_an_adapter_for_a_folder_is_refused_because_nobody_could_find_its_base(
    store: Store, tiny: Path, tmp_path: Path
) -> None:
    data = write_dialogues(tmp_path / "data", dialogues(3))
    config = make_config(store.uri, data, tmp_path, model_name_or_path=str(tiny), finetuning_type="lora")

    with pytest.raises(UsageError, match="tunegate models publish"):
        make_plan(config, store, tmp_path, 2)


def test_a_run_keeps_its_dialogues_to_a_step_when_fewer_processes_go_on(
    store: Store, tiny: Path, tmp_path: Path
) -> None:
    data = write_dialogues(tmp_path / "data", dialogues(9))
    config = make_config(store.uri, data, tmp_path, model_name_or_path=str(tiny), nproc_per_node=4)
    begun = make_plan(config, store, tmp_path, 4)
    check_same_run(begun, tmp_path, None)
    fewer = make_plan(msgspec.structs.replace(config, nproc_per_node=2), store, tmp_path, 2)

    resumed = check_same_run(fewer, tmp_path, read_record(tmp_path))

    assert record_of(resumed.producer).global_batch == read_record(tmp_path).global_batch == 16
    assert for_processes(resumed, 2).config.gradient_accumulation_steps == 2
    with pytest.raises(UsageError, match=r"16, 4 dialogues at a time, and 3 processes .* start 1, 2 or 4"):
        for_processes(resumed, 3)


def test_runs_that_compute_the_same_have_one_identity_whatever_they_are_called(store: Store, tmp_path: Path) -> None:
    def identity(place: str, **changes: Any) -> str:
        folder = tmp_path / place
        data = write_dialogues(folder / "data", dialogues(9))
        model = make_tiny(folder / "model", texts())
        settings = {"model_name_or_path": str(model), "run": place, **changes}
        settings = {"dataset": (str(data / "shop.jsonl"),), **settings}
        config = make_config(store.uri, data, folder, **settings)
        return record_of(make_plan(config, store, folder, 2).producer).identity

    assert identity("here") == identity("there", nproc_per_node=1)
    assert identity("here") != identity("here", learning_rate=2e-3)


def test_a_deepspeed_file_is_held_to_the_dialogues_that_a_run_began_with(
    store: Store, tiny: Path, tmp_path: Path
) -> None:
    data = write_dialogues(tmp_path / "data", dialogues(9))
    (tmp_path / "ds.json").write_text('{"train_batch_size": 16}')
    config = make_config(store.uri, data, tmp_path, model_name_or_path=str(tiny), deepspeed=str(tmp_path / "ds.json"))

    with pytest.raises(UsageError, match=r"says train_batch_size 16, but .* is 8"):
        check_same_run(make_plan(config, store, tmp_path, 2), tmp_path, None)

    check_same_run(make_plan(config, store, tmp_path, 4), tmp_path, None)
    check_same_run(make_plan(config, store, tmp_path, 2), tmp_path, read_record(tmp_path))  # half as many


def test_batches_make_up_for_missing_processes() -> None:
    assert [accumulation(24, 4, count) for count in (1, 2, 3, 6)] == [6, 3, 2, 1]
    for count in (4, 5, 12):
        with pytest.raises(UsageError, match=r"start 1, 2, 3 or 6"):
            accumulation(24, 4, count)
    with pytest.raises(UsageError, match=r"start 1\."):
        accumulation(4, 4, 2)


def test_the_package_imports_no_torch() -> None:
    check = "import sys, tunegate.training; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", check]).returncode == 0


def test_a_deepspeed_file_in_a_bucket_is_fetched_once_for_all_ranks(store: Store, tiny: Path, tmp_path: Path) -> None:
    place = parse_uri(f"{store.uri}/ds.json")
    client = connect(place, store.endpoint_url)
    client.put_object(Bucket=place.bucket, Key=place.prefix.rstrip("/"), Body=b'{"zero_optimization": {"stage": 1}}')
    data = write_dialogues(tmp_path / "data", dialogues(9))
    settings = {"model_name_or_path": str(tiny), "deepspeed": f"{store.uri}/ds.json"}
    config = make_config(store.uri, data, tmp_path, endpoint_url=store.endpoint_url, **settings)

    check_config(config)
    plan = make_plan(config, store, tmp_path, 2)

    assert plan.config.deepspeed is not None
    assert Path(plan.config.deepspeed).is_file()
    assert plan.producer.arguments["deepspeed"] == {"zero_optimization": {"stage": 1}}
