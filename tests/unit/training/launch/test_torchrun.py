"""Runs for real: torchrun, two processes, DeepSpeed, and a model store."""

from __future__ import annotations

import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from transformers import AutoTokenizer

from tests.processes import processes_about
from tests.unit.training.alone import train_here
from tests.unit.training.builders import dialogues, write_dialogues
from tests.unit.training.conftest import LORA, Run, Shop
from tests.unit.training.watching import (
    held,
    losses_of,
    ranks_of,
    start,
    start_module_under_torchrun,
    start_under_torchrun,
    wait_beside,
    weights_of,
)
from tests.waiting import wait_for
from tunegate.api.codec import from_yaml, to_json
from tunegate.api.errors import DataError, Preempted, TrainingError, UsageError
from tunegate.api.pinned import base_of
from tunegate.api.versions import RELEASE, ModelVersion, Producer, Release
from tunegate.models import materialize
from tunegate.store import Store
from tunegate.training import Progress, train
from tunegate.training.launch.lifecycle import begin
from tunegate.training.run.checkpoints import begin_checkpoint, complete_checkpoints, seal
from tunegate.training.run.plan import identity_of
from tunegate.training.run.preemption import StopRequest
from tunegate.training.run.progress import read_log

STEPS = [3, 6, 9, 12]
# What DeepSpeed, accelerate, peft and torch think of one another's names.
pytestmark = [
    *(pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("DeprecationWarning", "FutureWarning")),
    pytest.mark.usefixtures("forked_programs"),
]


def test_every_epoch_becomes_a_version_that_says_how_it_was_made(full: Run, shop: Shop) -> None:
    assert [version.name for version in full.versions] == [f"tiny/full/checkpoint-{step}" for step in STEPS]

    manifest = shop.store.manifest(full.versions[1].name)
    made = manifest.producer
    assert (made.kind, made.run, made.seed, made.step, made.epoch) == ("tunegate train", "full", 42, 6, 2.0)
    assert made.loss == read_log(full.output)[5].loss
    assert made.arguments["learning_rate"] == 1e-3
    assert [(dataset.name, dataset.rows) for dataset in made.datasets] == [("shop", 24)]
    assert made.code_version.startswith("0.")
    assert manifest.base == base_of(shop.base)


def test_the_release_goes_on_from_the_base(full: Run, shop: Shop) -> None:
    folder = materialize(shop.store, full.versions[-1])

    release = from_yaml((folder / RELEASE).read_bytes(), Release, RELEASE)

    assert release.format == "huggingface"
    assert release.system_prompt == "Be kind."
    assert release.generation == {"temperature": 0.5}


def test_progress_and_versions_are_told_as_they_come(full: Run) -> None:
    steps = [news for news in full.news if isinstance(news, Progress)]
    assert [step.current_steps for step in steps] == list(range(1, 13))
    assert all(step.total_steps == 12 for step in steps)
    assert all(0 <= step.padding < 0.5 for step in steps)
    assert steps[-1].loss < steps[0].loss
    assert [news.name for news in full.news if isinstance(news, ModelVersion)] == [one.name for one in full.versions]


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_a_version_renders_the_prompts_it_was_trained_with(
    kind: str, shop: Shop, request: pytest.FixtureRequest
) -> None:
    run: Run = request.getfixturevalue(kind)
    folder = materialize(shop.store, run.versions[-1])
    trained = AutoTokenizer.from_pretrained(shop.folder / "model")  # its template is the one training writes
    messages = [{"role": "user", "content": "水壶多少钱？"}]

    served = AutoTokenizer.from_pretrained(folder)

    for tokenize in (False, True):
        options = {"add_generation_prompt": True, "tokenize": tokenize}
        assert served.apply_chat_template(messages, **options) == trained.apply_chat_template(messages, **options)


def test_an_adapter_is_published_without_its_base_and_merges_into_it(lora: Run, shop: Shop) -> None:
    version = lora.versions[-1]
    files = {file.path: file.size for file in shop.store.manifest(version.name).files if "/" not in file.path}
    assert "adapter_model.safetensors" in files
    assert "model.safetensors" not in files

    merged = materialize(shop.store, version)

    weights, base = merged / "model.safetensors", shop.folder / "model" / "model.safetensors"
    assert weights.stat().st_size == base.stat().st_size
    assert weights.read_bytes() != base.read_bytes()


def test_a_run_whose_launcher_was_killed_goes_on_to_the_same_end(full: Run, shop: Shop) -> None:
    config = shop.config("killed", run="killed")
    output = Path(config.output_dir)
    launcher = start(config)
    try:
        wait_beside(launcher, (output / "checkpoint-3" / "resume" / "complete.json").exists)
        with held(ranks_of(output, "0")):  # it would soon be at the end
            launcher.kill()
            launcher.wait()
    finally:
        launcher.kill()
        launcher.wait()
    wait_for(lambda: not processes_about(output), what="its processes to be gone")
    assert not (output / "checkpoint-12" / "resume" / "complete.json").exists()

    versions = train(config)

    # Where the ranks heard that they were orphans, they kept one more.
    assert {version.name for version in versions} >= {f"tiny/killed/checkpoint-{step}" for step in STEPS}
    assert losses_of(output) == losses_of(full.output)
    assert weights_of(output) == weights_of(full.output)


def test_a_run_whose_rank_was_killed_says_what_to_do_and_leaves_no_process(shop: Shop) -> None:
    config = shop.config("lost", run="lost")
    output = Path(config.output_dir)

    def kill_a_rank(news: Progress | ModelVersion) -> None:
        if isinstance(news, ModelVersion):
            for pid in ranks_of(output, "1"):
                os.kill(pid, signal.SIGKILL)

    with pytest.raises(TrainingError, match="run the same command again"):
        train(config, kill_a_rank)

    assert not processes_about(output)


def test_a_run_that_stopped_where_it_was_asked_to_and_lost_its_folder_goes_on_from_the_store(
    lora: Run, shop: Shop
) -> None:
    config = shop.config("moved", run="moved", **LORA)
    output = Path(config.output_dir)
    stop = StopRequest(is_training=True)

    def stop_within_the_second_epoch(news: object) -> None:
        stop.requested = isinstance(news, Progress) and news.current_steps >= 6

    with pytest.raises(Preempted):
        train_here(config, stop_within_the_second_epoch, stop)
    kept = complete_checkpoints(output)[-1].step
    assert 6 < kept < 10
    shutil.rmtree(output)

    versions = train_here(config)

    assert [version.name for version in versions] == [f"tiny/moved/checkpoint-{step}" for step in (5, kept, 10, 12)]
    assert losses_of(output) == losses_of(lora.output)  # its log lies in the store, too
    assert weights_of(output) == weights_of(lora.output)


def test_ranks_of_a_launcher_of_the_users_are_started_anew(full: Run, shop: Shop) -> None:
    config = shop.config("theirs-anew", run="theirs-anew")
    output = Path(config.output_dir)
    launched = start_under_torchrun(config, "--max-restarts", "1")
    try:
        wait_beside(launched, (output / "checkpoint-3" / "resume" / "complete.json").exists)
        for pid in ranks_of(output, "0"):
            os.kill(pid, signal.SIGKILL)
        assert launched.wait(300) == 0
    finally:
        launched.kill()
        launched.wait()

    assert losses_of(output) == losses_of(full.output)
    assert weights_of(output) == weights_of(full.output)


def test_every_rank_stays_until_the_last_upload_is_done(shop: Shop, tmp_path: Path) -> None:
    """Kubeflow's controller ends the other pods of an elastic job as soon as one has ended."""
    config = shop.config("stays", run="stays")
    (tmp_path / "config.json").write_bytes(to_json(config))
    launched = start_module_under_torchrun("tests.unit.training.staying", str(tmp_path))
    try:
        wait_beside(launched, (tmp_path / "held").exists)
        with suppress(AssertionError):
            wait_for((tmp_path / "over").exists, seconds=5)
        is_over = (tmp_path / "over").exists()
        (tmp_path / "go").touch()
        assert launched.wait(300) == 0
    finally:
        launched.kill()
        launched.wait()
    assert not is_over
    assert (tmp_path / "over").exists()


def test_a_complete_run_only_reports(full: Run, shop: Shop, tmp_path: Path) -> None:
    log = (full.output / "train.log").read_bytes()
    assert train(full.config) == full.versions
    assert (full.output / "train.log").read_bytes() == log

    assert train(shop.config("full-again", run="full")) == full.versions
    assert not (shop.folder / "full-again" / "train.log").exists()


def test_what_was_complete_but_not_published_is_published(full: Run, shop: Shop) -> None:
    elsewhere = Store.open(f"{shop.store.uri}/elsewhere", endpoint_url=shop.store.endpoint_url)
    release = Release(format="huggingface", system_prompt="Be kind.", generation={"temperature": 0.5})
    elsewhere.publish(shop.folder / "model", shop.base.name, release=release, producer=Producer(kind="test"))

    versions = train(msgspec.structs.replace(full.config, store=elsewhere.uri))

    assert [version.name for version in versions] == [version.name for version in full.versions[-2:]]  # those kept


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"learning_rate": 2e-3}, r"began with --learning_rate 0.001, not 0.002", id="argument"),
        pytest.param({"resume": False}, "has checkpoints", id="no resume"),
    ],
)
def test_a_run_does_not_go_on_with_other_settings(full: Run, shop: Shop, change: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        train(shop.config("full", run="full", **change))
    with pytest.raises(UsageError, match=said):  # the store remembers, too
        train(shop.config("full-elsewhere", run="full", **change))


def test_a_run_of_other_settings_does_not_go_on_from_one_of_its_name_in_the_store(full: Run, shop: Shop) -> None:
    config = shop.config("full-namesake", run="full", learning_rate=2e-3)
    output = Path(config.output_dir)
    output.mkdir()
    elsewhere = Store.open(f"{shop.store.uri}/namesake", endpoint_url=shop.store.endpoint_url)
    release = Release(format="huggingface", system_prompt="Be kind.", generation={"temperature": 0.5})
    elsewhere.publish(shop.folder / "model", shop.base.name, release=release, producer=Producer(kind="test"))
    begin(msgspec.structs.replace(config, store=elsewhere.uri), output, 2, None)
    seal(begin_checkpoint(output, 1), step=1, total_steps=12, epoch=0.1, loss=1.0, run=identity_of(output))

    with pytest.raises(UsageError, match=r"began with --learning_rate 0.001, not 0.002"):
        train(config)

    assert [one.step for one in complete_checkpoints(output)] == [1]


def test_a_run_does_not_go_on_with_other_data(full: Run, shop: Shop, tmp_path: Path) -> None:
    other = write_dialogues(tmp_path, dialogues(23))
    account = (full.output / "account.json").read_bytes()

    with pytest.raises(UsageError, match="other bytes in the data set shop"):
        train(shop.config("full", run="full", dataset_dir=str(other)))

    assert (full.output / "account.json").read_bytes() == account


def test_what_a_process_can_not_do_is_told_in_a_sentence(shop: Shop) -> None:
    config = shop.config("short", run="short", nproc_per_node=1, finetuning_type="lora", lora_target=("nothing",))

    with pytest.raises(TrainingError, match="--lora_target 'nothing'"):
        train(config)


def test_records_that_can_not_be_used_are_named_before_a_process_starts(shop: Shop, tmp_path: Path) -> None:
    unanswered = write_dialogues(tmp_path, [dialogue[:2] for dialogue in dialogues(24)])
    config = shop.config("cut", run="cut", dataset_dir=str(unanswered))

    with pytest.raises(DataError, match=r"None of the 24 records .* can be used"):
        train(config)

    assert len((Path(config.output_dir) / "rejected.jsonl").read_text().splitlines()) == 24
    assert not (Path(config.output_dir) / "train.log").exists()


def test_one_process_trains_a_folder_in_all_its_weights(shop: Shop) -> None:
    config = shop.config(
        "alone",
        run="alone",
        nproc_per_node=1,
        max_steps=2,
        bf16="auto",
        gradient_accumulation_steps=2,
        model_name_or_path=str(shop.folder / "model"),
    )

    versions = train(config)

    assert [version.name for version in versions] == ["tiny/alone/checkpoint-2"]
    assert versions[0].base is None
